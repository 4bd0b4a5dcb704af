"""The one forward every trainer-side role runs: media in, log-probs of the policy's own tokens out."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from algorithms.logprobs import token_logprobs
from workers.models.shared_prompt import positions, segment_mask
from workers.multimodal.collate import Batch
from workers.multimodal.packing import Spans

LOGITS_AT_ONCE = 1 << 27
"""Numbers; half a gigabyte in float32."""


class PolicyModule(nn.Module):
    """Wraps a vision-language model so that one call computes token log-probs and entropies.

    Being a module itself, it is what a sharding engine wraps: parameters are gathered by the engine's own
    hooks, and the language-model head runs only at the positions that predict an action token.
    """

    def __init__(self, model: Any, *, vision_keepalive: bool) -> None:
        """
        Args:
            model: An image-text-to-text model of transformers.
            vision_keepalive: Run the vision tower on a blank image in text-only batches, multiplied by zero.
                Needed where ranks gather parameters together (ZeRO-3): a rank that skipped the tower would
                leave the others waiting for ever.
        """
        super().__init__()
        self.model = model
        self.vision_keepalive = vision_keepalive

    def forward(self, batch: Batch, blank_mm_inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Score the action tokens.

        Args:
            batch: Rows on the model's device.
            blank_mm_inputs: One blank image, used only by the keepalive.
        Returns:
            ``(logprobs, entropy)``, each float32 ``[N]``, nats, sequence after sequence as in ``batch.targets``.
        """
        # The plain layout is causal, with positions as the model itself counts them.
        layout = {"attention_mask": batch.attention_mask.long()}
        if batch.segments is not None:
            layout = {
                "attention_mask": segment_mask(batch.segments),
                "position_ids": positions(batch.segments, self._prompt_positions(batch, batch.segments.prompts)),
            }
        hidden = self.model.model(
            input_ids=batch.input_ids, use_cache=False, **layout, **batch.mm_inputs
        ).last_hidden_state
        if self.vision_keepalive and "pixel_values" not in batch.mm_inputs:
            hidden = hidden + 0.0 * self._touch_vision(blank_mm_inputs)
        return self._score(hidden.flatten(0, 1)[batch.predictors], batch.targets)

    def _score(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The head, in pieces whose logits are not kept for the backward pass; one piece keeps them."""
        vocabulary = self.model.config.get_text_config().vocab_size
        if len(targets) * vocabulary <= LOGITS_AT_ONCE:
            return self._head(hidden, targets)
        size = max(1, LOGITS_AT_ONCE // vocabulary)
        pieces = zip(hidden.split(size), targets.split(size), strict=True)
        scored: list[tuple[Tensor, Tensor]] = [checkpoint(self._head, *piece, use_reentrant=False) for piece in pieces]
        logprobs, entropy = zip(*scored, strict=True)
        return torch.cat(logprobs), torch.cat(entropy)

    def _head(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(self.model.lm_head(hidden), targets)

    def _prompt_positions(self, batch: Batch, prompts: Spans) -> Tensor:
        """Positions of the prompts as the model itself counts them: ``[G, P]``, or three axes where it has images."""
        if "mm_token_type_ids" not in batch.mm_inputs:
            return torch.arange(prompts.positions.shape[1], device=prompts.positions.device).expand_as(
                prompts.positions
            )
        grids = {k: v for k, v in batch.mm_inputs.items() if k.endswith("_grid_thw")}
        of_prompts, _ = self.model.model.get_rope_index(
            batch.input_ids[0][prompts.positions],
            mm_token_type_ids=batch.mm_inputs["mm_token_type_ids"][0][prompts.positions],
            attention_mask=prompts.real.long(),
            **grids,
        )
        return of_prompts

    def _touch_vision(self, blank: dict[str, Tensor]) -> Tensor:
        features = self.model.get_image_features(**blank, return_dict=True).pooler_output
        parts = features if isinstance(features, (tuple, list)) else (features,)
        return torch.stack([part.sum() for part in parts]).sum()
