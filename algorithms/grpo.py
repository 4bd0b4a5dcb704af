"""GRPO: a sample's advantage is its reward standardised among the samples of its prompt.

Shao et al. 2024, DeepSeekMath, section 4.1, https://arxiv.org/abs/2402.03300
"""

from typing import TYPE_CHECKING

from algorithms.policy_gradient import UNGUARDED, PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor


class Grpo(PolicyGradient):
    """Every token of a sample has the sample's advantage."""

    defaults = {**UNGUARDED, "rollout.samples_per_prompt": 8}
    compares_samples = True

    def advantages(self, scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor") -> "tuple[Tensor, float]":
        """(r − mean) / std among the samples of a prompt."""
        from algorithms.maths.advantages import group_advantages
        from algorithms.maths.masking import keep

        per_rollout = group_advantages(scores, prompts, baseline="grpo")
        return keep(per_rollout.unsqueeze(1).expand(mask.shape), mask), 0.0
