"""GRPO: a sample's advantage is its reward standardised among the samples of its prompt.

Shao et al. 2024, DeepSeekMath, section 4.1 and eq. 3, https://arxiv.org/abs/2402.03300
"""

from typing import TYPE_CHECKING

from algorithms.policy_gradient import UNGUARDED, PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor


class Grpo(PolicyGradient):
    """Every token of a sample has the sample's advantage; the KL to the reference is a term of the loss."""

    defaults = {**UNGUARDED, "algorithm.kl_estimator": "k3", "rollout.samples_per_prompt": 8}
    compares_samples = True
    kl_in_loss = True
    whitens_parts = True

    def advantages(self, scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor") -> "tuple[Tensor, float]":
        """(r − mean) / std among the samples of a prompt."""
        from algorithms.maths.advantages import group_advantages, on_tokens

        return on_tokens(group_advantages(scores, prompts, baseline="grpo"), mask), 0.0
