"""DPO and the losses that differ from it in one line: hinge (SLiC) and IPO."""

from typing import TYPE_CHECKING

from algorithms.groups import Reduction
from algorithms.preference import Preference

if TYPE_CHECKING:
    from torch import Tensor


class Dpo(Preference):
    """Direct preference optimisation: the logistic loss of a pair. Rafailov et al. 2023, eq. 7,
    https://arxiv.org/abs/2305.18290
    """

    smooths_labels = True

    def pair_loss(self, chosen: "Tensor", rejected: "Tensor", betas: "Tensor") -> "Tensor":
        """−log σ(β δ), its labels smoothed."""
        from algorithms.maths.preference_losses import dpo_loss

        smoothing = self.preference.label_smoothing
        return dpo_loss(chosen, rejected, kind="sigmoid", beta=betas, label_smoothing=smoothing).loss


class Hinge(Preference):
    """The hinge loss of a pair (SLiC). Zhao et al. 2023, https://arxiv.org/abs/2305.10425"""

    def pair_loss(self, chosen: "Tensor", rejected: "Tensor", betas: "Tensor") -> "Tensor":
        """max(0, 1 − β δ)."""
        from algorithms.maths.preference_losses import dpo_loss

        return dpo_loss(chosen, rejected, kind="hinge", beta=betas).loss


class Ipo(Preference):
    """The squared distance of a pair's log-ratios from a fixed one. Azar et al. 2023, eq. 17,
    https://arxiv.org/abs/2310.12036
    """

    @property
    def reduction(self) -> Reduction:
        """Per token, or of whole responses."""
        return self.preference.ipo_reduction

    def pair_loss(self, chosen: "Tensor", rejected: "Tensor", betas: "Tensor") -> "Tensor":
        """(δ − 1 / 2β)²."""
        from algorithms.maths.preference_losses import dpo_loss

        kind = "ipo_mean" if self.reduction == "mean" else "ipo_sum"
        return dpo_loss(chosen, rejected, kind=kind, beta=betas).loss
