"""KTO over pairs as VL-RLHF has it: a loss that couples the whole step.

The driver scores the step under the weights that will learn and differentiates the loss by the scores; what is left to
the workers is linear in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from algorithms.algorithm import Ask, Objective, StepSamples
from algorithms.figures import Tallies
from algorithms.groups import (
    ACCURACY,
    HELD_OUT,
    MARGIN,
    NUM_PAIRS,
    Group,
    GroupObjective,
    PairGroup,
    pair_margins,
    ratios_now,
)
from algorithms.preference import Preference
from algorithms.records import Example
from algorithms.tokens import ENTROPY, TOKEN_ACCURACY

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearGroup(Group):
    """A loss by its derivatives."""

    coefficients: np.ndarray
    """float64 ``[S]``: derivative of the global loss by each score."""
    constant: float
    """What makes the sum over all groups equal to the loss where it was differentiated."""


@dataclass(frozen=True, slots=True)
class LinearObjective(GroupObjective):
    """The tangent of the loss."""

    def group_loss(self, group: LinearGroup, ratios: "Tensor") -> "tuple[Tensor, Tallies]":
        """The group's part of it."""
        import torch

        coefficients = torch.from_numpy(np.array(group.coefficients)).to(ratios)
        return (ratios * coefficients).sum() + group.constant, {}


class KtoPair(Preference):
    """KTO over pairs, for comparison with VL-RLHF."""

    figures = (*HELD_OUT[:2], NUM_PAIRS, ACCURACY, MARGIN, TOKEN_ACCURACY, ENTROPY, *HELD_OUT[2:])

    def objective(self) -> Objective:
        """Linear in the scores."""
        return LinearObjective()

    def samples(self, batch: Sequence[Example], ask: Ask) -> StepSamples:
        """Pair groups with their loss replaced by its derivatives."""
        groups, beta = self.groups(batch, ask), self.preference.beta
        with ask.phase("baseline"):
            ratios = ratios_now(groups, ask)
        margins = beta * np.concatenate(pair_margins(groups, ratios))
        told = {
            NUM_PAIRS.name: float(len(margins)),
            ACCURACY.name: float(np.mean(margins > 0)),
            MARGIN.name: float(np.mean(margins)),
        }
        return StepSamples([coupled(groups, ratios, beta=beta)], told)


def coupled(groups: Sequence[PairGroup], ratios: Sequence[np.ndarray], *, beta: float) -> list[LinearGroup]:
    """``kto_pair_loss`` of a whole step by its derivatives.

    Args:
        ratios: float64 ``[S]`` a group: its scores less the reference's, under the weights that will learn.
    """
    import torch

    from algorithms.maths.preference_losses import kto_pair_loss

    leaves = [torch.from_numpy(r).requires_grad_() for r in ratios]
    chosen, rejected = (
        torch.cat([leaf[torch.from_numpy(g.pairs[:, side])] for leaf, g in zip(leaves, groups, strict=True)])
        for side in (0, 1)
    )
    loss = kto_pair_loss(chosen, rejected, beta=beta).loss.mean()
    slopes = [slope.numpy() for slope in torch.autograd.grad(loss, leaves)]
    linear = sum(float(np.dot(slope, r)) for slope, r in zip(slopes, ratios, strict=True))
    constant = (float(loss.detach()) - linear) / len(groups)
    return [
        LinearGroup(
            sequences=g.sequences,
            score_of=g.score_of,
            score_weights=g.score_weights,
            ref_scores=g.ref_scores,
            coefficients=slope,
            constant=constant,
        )
        for g, slope in zip(groups, slopes, strict=True)
    ]
