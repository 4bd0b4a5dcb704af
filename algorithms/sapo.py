"""SAPO: GRPO with a soft gate in place of the clip.

Gao et al. 2025, eq. 5 and 6, https://arxiv.org/abs/2511.20347
"""

from typing import TYPE_CHECKING

from pydantic import Field

from algorithms.grpo import Grpo
from algorithms.policy_objective import PolicyTokens
from algorithms.settings import Section

if TYPE_CHECKING:
    from torch import Tensor

    from algorithms.maths.policy_losses import PolicyLoss


class SapoSection(Section):
    """The soft gate."""

    tau_pos: float = Field(default=1.0, gt=0.0)
    """Temperature where the advantage is positive: the larger, the sooner a ratio away from 1 counts nothing."""
    tau_neg: float = Field(default=1.05, gt=0.0)
    """Temperature where it is not; larger than the other, since what is pushed down spreads over all other tokens."""


class Sapo(Grpo):
    """``algorithm.clip_low`` and ``clip_high`` are not read."""

    sections = {**Grpo.sections, "sapo": SapoSection}
    unclipped = True

    def policy_loss(self, log_ratio: "Tensor", tokens: PolicyTokens) -> "PolicyLoss":
        """−(4 / τ) σ(τ (ρ − 1)) Â."""
        from algorithms.maths.policy_losses import sapo_loss_map

        own = self.settings["sapo"]
        assert isinstance(own, SapoSection)
        return sapo_loss_map(log_ratio, tokens.advantages, tokens.mask, tau_pos=own.tau_pos, tau_neg=own.tau_neg)
