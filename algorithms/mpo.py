"""MPO: which response is better, how good each is by itself, and how the better one is written, in one loss.

0.8 DPO + 0.2 BCO + 1.0 cross-entropy of the chosen. Wang et al. 2024, section 3.2, https://arxiv.org/abs/2411.10442
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from algorithms.algorithm import Ask, Objective, StepSamples, Unlearnable
from algorithms.figures import Figure, Tallies
from algorithms.groups import IMITATION, GroupObjective, PairGroup, pair_figures, ratios_now, sides
from algorithms.preference import Preference, imitation_shares
from algorithms.records import Example
from algorithms.settings import Section

if TYPE_CHECKING:
    from torch import Tensor

_SHIFT = Figure(
    "preference/reward_shift",
    "mean reward of both sides of the step's pairs before its update, which BCO compares with",
    "Reward shift, reward units",
    "shift",
)


class MpoSection(Section):
    """What the three losses count."""

    dpo_weight: float = Field(default=0.8, ge=0.0)
    """Weight of the pairs' DPO loss."""
    bco_weight: float = Field(default=0.2, ge=0.0)
    """Weight of the classifier's loss of each response by itself (BCO), summed over both sides of a pair."""
    sft_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the chosen responses' cross-entropy, the mean over pairs of means over tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftedGroup(PairGroup):
    """Pairs whose rewards are compared with a number, too."""

    shift: float
    """Of the global batch, reward units."""


@dataclass(frozen=True, slots=True)
class MpoObjective(GroupObjective):
    """Both losses of every pair, by its share; what is imitated is the group's."""

    dpo_weight: float
    bco_weight: float

    def group_loss(self, group: ShiftedGroup, ratios: "Tensor") -> "tuple[Tensor, Tallies]":
        """Over the group's pairs."""
        import torch

        from algorithms.maths.preference_losses import bco_loss, dpo_loss

        chosen, rejected = sides(group.pairs, ratios)
        betas, weights = (torch.from_numpy(np.array(v)).to(ratios) for v in (group.betas, group.weights))
        preferred = dpo_loss(chosen, rejected, kind="sigmoid", beta=betas)
        quality = bco_loss(chosen, rejected, beta=betas, shift=group.shift)
        losses = self.dpo_weight * preferred.loss + self.bco_weight * quality.loss
        return (losses * weights).sum(), pair_figures(preferred)


class Mpo(Preference):
    """Mixed preference optimisation."""

    sections = {**Preference.sections, "mpo": MpoSection}
    figures = (*Preference.figures, IMITATION, _SHIFT)

    @property
    def mpo(self) -> MpoSection:
        """Its own settings."""
        section = self.settings["mpo"]
        assert isinstance(section, MpoSection)
        return section

    def check(self, config: Any) -> None:
        """Refuse a loss of nothing."""
        if not any(weight for _, weight in self.mpo):
            raise ValueError("mpo.dpo_weight = 0, mpo.bco_weight = 0 and mpo.sft_weight = 0: one must be above 0")

    def objective(self) -> Objective:
        """The pairs' two losses."""
        return MpoObjective(self.mpo.dpo_weight, self.mpo.bco_weight)

    def samples(self, batch: Sequence[Example], ask: Ask) -> StepSamples:
        """The shift is of the whole step, under the weights that will learn: the same on every rank and after a resume,
        which a running mean is not.
        """
        groups = self.groups(batch, ask)
        with ask.phase("baseline"):
            ratios = ratios_now(groups, ask)
        rewards = []
        for group, of_group in zip(groups, ratios, strict=True):
            if not np.isfinite(of_group).all():
                raise Unlearnable(f"the log-probs of prompt {group.uid}, for the step's reward shift, are not finite")
            rewards.append((of_group[group.pairs] * group.betas[:, None]).ravel())
        shift = float(np.concatenate(rewards).mean())
        return StepSamples([[_shifted(g, shift) for g in groups]], {_SHIFT.name: shift})

    def imitation(self, examples: Sequence[Example]) -> list[dict[int, float]]:
        """A response counts as often as it is chosen."""
        if not self.mpo.sft_weight:
            return []
        return imitation_shares(examples, weight=self.mpo.sft_weight, mode="seq-mean-token-mean", once=False)


def _shifted(group: PairGroup, shift: float) -> ShiftedGroup:
    return ShiftedGroup(**{f.name: getattr(group, f.name) for f in fields(PairGroup)}, shift=shift)
