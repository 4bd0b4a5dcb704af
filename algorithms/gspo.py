"""GSPO: GRPO with one ratio for a whole response, length-normalised, so that responses are clipped and not tokens.

Zheng et al. 2025, eq. 5 to 7, in the form of eq. 13 and 14, https://arxiv.org/abs/2507.18071
"""

from typing import TYPE_CHECKING

from algorithms.grpo import Grpo
from algorithms.policy_objective import PolicyTokens

if TYPE_CHECKING:
    from torch import Tensor


class Gspo(Grpo):
    """The clip is narrow, for a mean over many tokens moves little."""

    defaults = {**Grpo.defaults, "algorithm.clip_low": 3e-4, "algorithm.clip_high": 4e-4}

    def log_ratio(self, tokens: PolicyTokens) -> "Tensor":
        """Mean over the response, with the gradient of each token."""
        from algorithms.maths.policy_losses import sequence_log_ratio

        return sequence_log_ratio(
            tokens.logprobs, tokens.old_logprobs, tokens.mask, tokens.lengths, length_normalised=True
        )
