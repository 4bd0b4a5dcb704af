"""MM-DPO: DPO in which a reward model's margin says how much a pair counts, and chosen responses are imitated.

Source: MM-RLHF, section 4.2, https://arxiv.org/abs/2502.10391
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from algorithms.algorithm import Ask, Needs, StepSamples, Unlearnable
from algorithms.critique_rm import CritiqueRm
from algorithms.dpo import Dpo
from algorithms.figures import Figure
from algorithms.groups import IMITATION, PairGroup, pair_margins, ratios_now
from algorithms.preference import Preference, imitation_shares
from algorithms.records import Example, WeighedPairs
from algorithms.settings import Count, Section

_log = logging.getLogger(__name__)
_BETA = "Beta of the step's pairs, 1/nats"
_BETAS = (
    Figure(
        "beta/mean",
        "mean over the pairs that are learned from, 1/nats; with `batch_implicit` the step's one beta",
        _BETA,
        "mean",
    ),
    Figure("beta/max", "the largest of them", _BETA, "largest"),
)
_MARGINS = (
    Figure(
        "margin/mean",
        "with margins: mean chosen less rejected reward of the critique reward model, over all pairs with a reward on "
        "both sides, dropped ones included",
        "Margin under the critique reward model",
        "mean",
    ),
    Figure(
        "margin/negative_frac",
        "with margins: share of the same pairs whose margin is below 0",
        "Pairs against the critique reward model",
        "share with a negative margin",
    ),
)
_DROPPED = Figure(
    "data/dropped_pairs",
    "pairs of the step's instructions left out: without a reward or factor, or with a negative margin that is dropped; "
    "an instruction that is left without any counts in `data/passed_over` instead",
    "Pairs left out",
    "of the step",
)


class MmDpoSection(Section):
    """DPO in which a reward model's margin says how much a pair counts (MM-DPO)."""

    beta_mode: Literal["margin", "precomputed_factor", "fixed", "batch_implicit"] = "margin"
    """Where a pair's beta comes from: its margin under the critique reward model, a factor that came with the data,
    nowhere (preference.beta), or one draw a batch from the policy's own log-ratios, as released."""
    margin_weight: float = Field(default=0.5, ge=0.0)
    """w: beta rises from preference.beta to (1 + w) times that."""
    margin_steepness: float = Field(default=0.5, gt=0.0)
    """k: how fast it rises with the margin."""
    negative_margin: Literal["clamp", "drop", "flag"] = "clamp"
    """Pairs whose rejected response has the greater reward: margin 0, left out, or margin 0 and named in the log."""
    sft_weight: float = Field(default=0.25, ge=0.0)
    """Weight of the chosen responses' cross-entropy."""
    sft_mean: Literal["token", "response"] = "token"
    """Mean of that cross-entropy over the step's chosen tokens, or over chosen responses of their means."""
    sft_once: bool = False
    """Count a response once, not once for each pair in which it is chosen."""
    critique_rm_steps: Count | None = None
    """Steps for which the critique reward model is trained where reward.critique.path names none; none = run.steps."""
    critique_rm_lr: float | None = Field(default=None, gt=0.0)
    """Its peak learning rate; none = optimizer.lr."""


class MmDpo(Dpo):
    """The preference optimisation of MM-RLHF; it trains a critique reward model first where it is given none."""

    sections = {**CritiqueRm.sections, "mm_dpo": MmDpoSection}
    profiles = {
        "mmrlhf_paper": CritiqueRm.profiles["mmrlhf_paper"],
        "mmrlhf_released": {
            **CritiqueRm.profiles["mmrlhf_released"],
            # The loss that its trainer computes.
            "mm_dpo.beta_mode": "batch_implicit",
            "mm_dpo.margin_weight": 0.1,
            "mm_dpo.sft_weight": 0.25,
            "mm_dpo.sft_mean": "token",
        },
    }

    figures = (*Preference.figures, IMITATION, *_BETAS, *_MARGINS, _DROPPED)
    smooths_labels = False

    @property
    def mm_dpo(self) -> MmDpoSection:
        """Its own settings."""
        section = self.settings["mm_dpo"]
        assert isinstance(section, MmDpoSection)
        return section

    @property
    def needs(self) -> Needs:
        """Pairs, each with a beta of its own; margins where these make it."""
        return Needs(
            data=("preferences",),
            responses="pairs",
            reference=True,
            pair_betas=True,
            margins=self.mm_dpo.beta_mode == "margin",
        )

    def samples(self, batch: Sequence[Example], ask: Ask) -> StepSamples:
        """Pairs with their betas; in mode ``batch_implicit`` one for the step."""
        groups, told = self.groups(batch, ask), beta_figures(batch)
        if self.mm_dpo.beta_mode != "batch_implicit":
            return StepSamples([groups], told)
        with ask.phase("baseline"):
            margins = pair_margins(groups, ratios_now(groups, ask))
        for group, of_group in zip(groups, margins, strict=True):
            if not np.isfinite(of_group).all():
                raise Unlearnable(f"the log-probs of prompt {group.uid}, for the step's beta, are not finite")
        beta = self.step_beta(np.concatenate(margins), seed=ask.draw("implicit beta"))
        return StepSamples([_with_beta(groups, beta)], told | {figure.name: beta for figure in _BETAS})

    def imitation(self, examples: Sequence[Example]) -> list[dict[int, float]]:
        """A response counts as often as it is chosen, or once."""
        own = self.mm_dpo
        if not own.sft_weight:
            return []
        mode = "token-mean" if own.sft_mean == "token" else "seq-mean-token-mean"
        return imitation_shares(examples, weight=own.sft_weight, mode=mode, once=own.sft_once)

    def weigh(
        self,
        uid: str,
        pairs: tuple[tuple[int, int], ...],
        *,
        rewards: tuple[np.ndarray, ...] | None,
        factors: Mapping[tuple[int, int], float],
    ) -> WeighedPairs | str:
        """β of each pair of an instruction by ``mm_dpo.beta_mode``; a reason where no pair is left.

        Args:
            uid: Of the instruction, for the log.
            pairs: Chosen and rejected, as indices of the instruction's responses.
            rewards: For every response of the instruction float32 ``[1]``, or ``[0]`` where it has none; read in mode
                ``margin``.
            factors: Of pairs, as they came with the data; read in mode ``precomputed_factor``.
        """
        import torch

        from algorithms.maths.pair_betas import factor_betas

        mode, beta = self.mm_dpo.beta_mode, self.preference.beta
        if mode == "margin":
            assert rewards is not None
            return self._by_margin(uid, pairs, rewards)
        if mode != "precomputed_factor":
            return WeighedPairs(pairs=pairs, betas=(beta,) * len(pairs), margins=(), num_dropped=0)
        known = tuple(pair for pair in pairs if pair in factors)
        if not known:
            return "no pair of it has 'ls_factor', which mm_dpo.beta_mode = 'precomputed_factor' reads"
        given = torch.tensor([factors[pair] for pair in known], dtype=torch.float64)
        betas = factor_betas(given, beta=beta, weight=self.mm_dpo.margin_weight)
        return WeighedPairs(pairs=known, betas=tuple(betas.tolist()), margins=(), num_dropped=len(pairs) - len(known))

    def step_beta(self, margins: np.ndarray, *, seed: int) -> float:
        """One β for all pairs of a step, by a draw that depends on the seed alone.

        Args:
            margins: float64 ``[P]``, nats: of every pair of the step how much more the policy has moved towards the
                chosen.
        Raises:
            ValueError: see ``implicit_beta``.
        """
        import torch

        from algorithms.maths.pair_betas import implicit_beta, implicit_sample

        z = torch.from_numpy(margins)
        drawn = implicit_sample(z, generator=torch.Generator().manual_seed(seed))
        return float(implicit_beta(z, drawn, beta=self.preference.beta, weight=self.mm_dpo.margin_weight))

    def _by_margin(
        self, uid: str, pairs: tuple[tuple[int, int], ...], rewards: tuple[np.ndarray, ...]
    ) -> WeighedPairs | str:
        import torch

        from algorithms.maths.pair_betas import margin_betas

        known = [pair for pair in pairs if all(len(rewards[i]) for i in pair)]
        if not known:
            return "no pair of it has a reward on both sides"
        margins = torch.tensor([float(rewards[c][0]) - float(rewards[r][0]) for c, r in known], dtype=torch.float64)
        made = margin_betas(
            margins,
            beta=self.preference.beta,
            weight=self.mm_dpo.margin_weight,
            steepness=self.mm_dpo.margin_steepness,
            negative=self.mm_dpo.negative_margin,
        )
        for at in made.flagged:
            chosen, rejected = (index + 1 for index in known[at])
            _log.warning("instruction %s: response %d over %d has the margin %.3f", uid, chosen, rejected, margins[at])
        kept = [index for index, keep in enumerate(made.keep.tolist()) if keep]
        if not kept:
            return "every pair of it has a negative margin"
        return WeighedPairs(
            pairs=tuple(known[i] for i in kept),
            betas=tuple(made.betas[kept].tolist()),
            margins=tuple(margins.tolist()),
            num_dropped=len(pairs) - len(kept),
        )


def beta_figures(examples: Sequence[Example]) -> dict[str, float]:
    """What a reward model's margins make of a step's pairs; empty where every pair counts alike."""
    betas = [beta for e in examples for beta in e.betas]
    margins = np.array([margin for e in examples for margin in e.margins])
    if not betas:
        return {}
    told = {_BETAS[0].name: float(np.mean(betas)), _BETAS[1].name: float(np.max(betas))}
    told[_DROPPED.name] = float(sum(e.num_dropped for e in examples))
    if len(margins):
        told |= {_MARGINS[0].name: float(margins.mean()), _MARGINS[1].name: float(np.mean(margins < 0))}
    return told


def _with_beta(groups: Sequence[PairGroup], beta: float) -> list[PairGroup]:
    """The same groups, all their pairs with one β, 1/nats."""
    return [replace(g, betas=np.full(len(g.pairs), beta)) for g in groups]
