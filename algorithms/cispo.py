"""CISPO: REINFORCE on the advantages of GRPO, each token under a clipped importance weight without gradient.

MiniMax 2025, MiniMax-M1, eq. 4 and 5, https://arxiv.org/abs/2506.13585
"""

from typing import TYPE_CHECKING

from algorithms.grpo import Grpo
from algorithms.policy_objective import PolicyTokens

if TYPE_CHECKING:
    from torch import Tensor

    from algorithms.maths.policy_losses import PolicyLoss


class Cispo(Grpo):
    """The weight has no lower bound, as in the paper, which tells no number for the upper one: 5 is that of ScaleRL,
    https://arxiv.org/abs/2510.13786
    """

    defaults = {
        **Grpo.defaults,
        "algorithm.clip_low": 1.0,
        "algorithm.clip_high": 4.0,
        "algorithm.aggregation": "token-mean",
    }
    unclipped = True

    def policy_loss(self, log_ratio: "Tensor", tokens: PolicyTokens) -> "PolicyLoss":
        """−sg[clamp(ρ)] Â log π."""
        from algorithms.maths.policy_losses import cispo_loss_map

        return cispo_loss_map(
            log_ratio,
            tokens.logprobs,
            tokens.advantages,
            tokens.mask,
            clip_low=self.section.clip_low,
            clip_high=self.section.clip_high,
        )
