"""The one forward every trainer-side role runs: media in, log-probs of the policy's own tokens out."""

from typing import Any

import torch
from torch import Tensor, nn

from algorithms.logprobs import token_logprobs


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

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        action_mask: Tensor,
        mm_inputs: dict[str, Tensor],
        blank_mm_inputs: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Score the action tokens.

        Args:
            input_ids: ``[B, T]``, right-padded.
            attention_mask: bool ``[B, T]``, True on real tokens.
            action_mask: bool ``[B, T]``, True on tokens the policy sampled; never on slot 0.
            mm_inputs: Tensors the model's forward takes for its media; empty for text only.
            blank_mm_inputs: One blank image, used only by the keepalive.
        Returns:
            ``(logprobs, entropy)``, each float32 ``[B, T]``, nats, zero outside ``action_mask``.
        """
        hidden = self.model.model(
            input_ids=input_ids, attention_mask=attention_mask.long(), use_cache=False, **mm_inputs
        ).last_hidden_state
        if self.vision_keepalive and "pixel_values" not in mm_inputs:
            hidden = hidden + 0.0 * self._touch_vision(blank_mm_inputs)
        predicts = action_mask[:, 1:]
        logits = self.model.lm_head(hidden[:, :-1][predicts])
        logprobs, entropy = token_logprobs(logits, input_ids[:, 1:][predicts])
        return _scatter(logprobs, predicts), _scatter(entropy, predicts)

    def _touch_vision(self, blank: dict[str, Tensor]) -> Tensor:
        features = self.model.get_image_features(**blank, return_dict=True).pooler_output
        parts = features if isinstance(features, (tuple, list)) else (features,)
        return torch.stack([part.sum() for part in parts]).sum()


def _scatter(values: Tensor, predicts: Tensor) -> Tensor:
    """Put ``[N]`` values back into ``[B, T]``, one slot to the right of the position that predicted them."""
    out = values.new_zeros(predicts.shape[0], predicts.shape[1] + 1)
    out[:, 1:][predicts] = values
    return out
