"""REINFORCE++: no value model; returns are whitened over the whole batch. Also with a baseline of the prompt's own.

Hu 2025, https://arxiv.org/abs/2501.03262
"""

from typing import TYPE_CHECKING

from algorithms.policy_gradient import UNGUARDED, PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor


class ReinforcePp(PolicyGradient):
    """StableReinforce without its two guards."""

    defaults = UNGUARDED


class ReinforcePpBaseline(PolicyGradient):
    """Rewards count by how far they are from the mean of their prompt's samples."""

    defaults = {**UNGUARDED, "rollout.samples_per_prompt": 8}
    compares_samples = True

    def advantages(self, scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor") -> "tuple[Tensor, float]":
        """Whitened returns of r − mean of all samples of the prompt."""
        from algorithms.maths.advantages import group_advantages

        return super().advantages(group_advantages(scores, prompts, baseline="mean"), prompts, kl, mask)
