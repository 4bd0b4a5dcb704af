"""RLOO: a sample's advantage is its reward less the mean reward of the prompt's other samples.

Ahmadian et al. 2024, section 2.3, https://arxiv.org/abs/2402.14740
"""

from typing import TYPE_CHECKING

from algorithms.policy_gradient import UNGUARDED, PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor


class Rloo(PolicyGradient):
    """Every token of a sample has the sample's advantage."""

    defaults = {**UNGUARDED, "algorithm.aggregation": "token-mean", "rollout.samples_per_prompt": 8}
    compares_samples = True

    def advantages(self, scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor") -> "tuple[Tensor, float]":
        """r − mean of the other samples of the prompt."""
        from algorithms.maths.advantages import group_advantages
        from algorithms.maths.masking import keep

        per_rollout = group_advantages(scores, prompts, baseline="rloo")
        return keep(per_rollout.unsqueeze(1).expand(mask.shape), mask), 0.0
