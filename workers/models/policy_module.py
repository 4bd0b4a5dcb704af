"""The one forward every trainer-side role runs: media in, log-probs of the policy's own tokens out."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from algorithms.logprobs import token_logprobs
from workers.models.backbone import hidden_states
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

    def __init__(self, model: Any, *, lockstep: bool) -> None:
        """
        Args:
            model: An image-text-to-text model of transformers.
            lockstep: Several ranks learn together. One that skipped a module would leave the others waiting for its
                parameters (ZeRO-3) or gradients (ZeRO-1 and 2). So the head runs equally often on every rank, and
                every batch has an image (``Collator(always_an_image=True)``).
        """
        super().__init__()
        self.model = model
        self.lockstep = lockstep

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Score the action tokens.

        Args:
            batch: Rows on the model's device.
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
        hidden = hidden_states(self.model, batch.mm_inputs, input_ids=batch.input_ids, **layout)
        chosen = hidden.flatten(0, 1)[batch.predictors]
        if self.lockstep:
            # A blank image counts for nothing, and its tower must all the same have a backward pass.
            chosen = chosen + 0.0 * hidden.sum()
        return self._score(chosen, batch.targets)

    def _score(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The head, in pieces whose logits are not kept for the backward pass; one piece keeps them."""
        vocabulary = self.model.config.get_text_config().vocab_size
        num_pieces = max(1, -(-len(targets) * vocabulary // LOGITS_AT_ONCE))
        if self.lockstep:
            most = torch.tensor(num_pieces, device=targets.device)
            torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
            num_pieces = int(most)
        if num_pieces == 1:
            return self._head(hidden, targets)
        pieces = zip(hidden.tensor_split(num_pieces), targets.tensor_split(num_pieces), strict=True)
        scored: list[tuple[Tensor, Tensor]] = [
            checkpoint(self._head, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces
        ]
        logprobs, entropy = zip(*scored, strict=True)
        return torch.cat(logprobs), torch.cat(entropy)

    def _head(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(self.model.get_output_embeddings()(hidden), targets)

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
