"""RLOO: a sample's advantage is its reward less the mean reward of the prompt's other samples.

A whole response is one action: its tokens' losses are summed, and its ratio is that of its probability. Ahmadian et al.
2024, sections 2.3 and 3, https://arxiv.org/abs/2402.14740
"""

from typing import TYPE_CHECKING

from algorithms.policy_gradient import UNGUARDED, PolicyGradient
from algorithms.policy_objective import PolicyTokens

if TYPE_CHECKING:
    from torch import Tensor


class Rloo(PolicyGradient):
    """Every token of a sample has the sample's advantage; the KL to the reference is charged to its reward."""

    defaults = {**UNGUARDED, "algorithm.aggregation": "seq-mean-token-sum", "rollout.samples_per_prompt": 8}
    compares_samples = True

    def advantages(self, scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor") -> "tuple[Tensor, float]":
        """r − kl_coef · KL of the response, less the mean of the same over the prompt's other samples."""
        from algorithms.maths.advantages import group_advantages, on_tokens

        own = self.section
        clipped = scores if own.reward_clip is None else scores.clamp(-own.reward_clip, own.reward_clip)
        charged = clipped - own.kl_coef * kl.sum(dim=1)
        return on_tokens(group_advantages(charged, prompts, baseline="rloo"), mask), 0.0

    def log_ratio(self, tokens: PolicyTokens) -> "Tensor":
        """Sum over the response, with the gradient of each token."""
        from algorithms.maths.policy_losses import sequence_log_ratio

        return sequence_log_ratio(
            tokens.logprobs, tokens.old_logprobs, tokens.mask, tokens.lengths, length_normalised=False
        )
