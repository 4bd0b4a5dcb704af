"""Dr. GRPO: GRPO without the two divisions that bias it, by a prompt's std and by a response's length.

Liu et al. 2025, section 3.2, https://arxiv.org/abs/2503.20783
"""

from typing import TYPE_CHECKING

from algorithms.grpo import Grpo

if TYPE_CHECKING:
    from torch import Tensor


class DrGrpo(Grpo):
    """Losses of tokens are summed and divided by the generation limit, whatever a response's length."""

    defaults = {**Grpo.defaults, "algorithm.aggregation": "seq-mean-token-sum-norm"}
    whitens_parts = False

    def advantages(self, scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor") -> "tuple[Tensor, float]":
        """r − mean of all samples of the prompt."""
        from algorithms.maths.advantages import group_advantages, on_tokens

        return on_tokens(group_advantages(scores, prompts, baseline="mean"), mask), 0.0
