"""A scalar reward model: one number a response, in place of the language model's head (Bradley-Terry).

Ouyang et al. 2022, eq. 1, https://arxiv.org/abs/2203.02155
"""

from typing import TYPE_CHECKING

from algorithms.algorithm import Needs, ScalarHead
from algorithms.groups import ACCURACY, CHOSEN, HELD_OUT, MARGIN, NUM_PAIRS, REJECTED
from algorithms.preference import Preference
from algorithms.records import Example

if TYPE_CHECKING:
    from torch import Tensor


class ScalarRm(Preference):
    """The reward model of RLHF."""

    figures = (*HELD_OUT[:2], NUM_PAIRS, ACCURACY, MARGIN, CHOSEN, REJECTED, *HELD_OUT[2:])

    @property
    def needs(self) -> Needs:
        """Pairs, and a head that gives each response its reward."""
        return Needs(data=("preferences",), responses="pairs", head=ScalarHead())

    def beta(self, example: Example, pair: int) -> float:
        """Rewards are compared as they are."""
        return 1.0

    def pair_loss(self, chosen: "Tensor", rejected: "Tensor", betas: "Tensor") -> "Tensor":
        """−log σ(r_c − r_r)."""
        from algorithms.maths.preference_losses import bradley_terry_loss

        return bradley_terry_loss(chosen, rejected).loss
