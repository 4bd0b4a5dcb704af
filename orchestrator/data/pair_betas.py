"""What each pair of an instruction counts in MM-DPO: its margin under a reward model, and the β it gives. Pure.

Source: MM-RLHF, section 4.2, https://arxiv.org/abs/2502.10391
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from algorithms.maths.pair_betas import NegativeMargin, factor_betas, implicit_beta, implicit_sample, margin_betas
from orchestrator.run.cursor import sample_seed

_log = logging.getLogger(__name__)
REWARD_TABLE = "reward"
"""Name of the side table with the critique reward model's rewards."""
FACTOR = "ls_factor"
"""Name under which a reader keeps the factors that came with the data."""


class BetaSettings(Protocol):
    """The numbers of the configuration's ``mm_dpo`` section that make β."""

    @property
    def beta_mode(self) -> str: ...
    @property
    def margin_weight(self) -> float: ...
    @property
    def margin_steepness(self) -> float: ...
    @property
    def negative_margin(self) -> NegativeMargin: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WeighedPairs:
    """The pairs that are learned from, and what became of the others."""

    pairs: tuple[tuple[int, int], ...]
    betas: tuple[float, ...]
    """1/nats, one a pair."""
    margins: tuple[float, ...]
    """Reward of the chosen less that of the rejected, of every pair that has one; empty without a reward model."""
    num_dropped: int
    """Pairs left out: without a reward on either side, without a factor, or with a negative margin that is dropped."""


def weigh_pairs(
    uid: str,
    pairs: tuple[tuple[int, int], ...],
    *,
    settings: BetaSettings,
    beta: float,
    rewards: tuple[np.ndarray, ...] | None,
    factors: Mapping[tuple[int, int], float],
) -> WeighedPairs | str:
    """β of each pair by ``settings.beta_mode``; a reason where no pair is left.

    Args:
        uid: Of the instruction, for the log.
        pairs: Chosen and rejected, as indices of the instruction's responses.
        beta: β of the configuration, 1/nats.
        rewards: For every response of the instruction float32 ``[1]``, or ``[0]`` where it has none; read in mode
            ``margin``.
        factors: Of pairs, as they came with the data; read in mode ``precomputed_factor``.
    """
    if settings.beta_mode == "margin":
        assert rewards is not None
        return _by_margin(uid, pairs, settings, beta, rewards)
    if settings.beta_mode != "precomputed_factor":
        return WeighedPairs(pairs=pairs, betas=(beta,) * len(pairs), margins=(), num_dropped=0)
    known = tuple(pair for pair in pairs if pair in factors)
    if not known:
        return f"no pair of it has {FACTOR!r}, which mm_dpo.beta_mode = 'precomputed_factor' reads"
    given = torch.tensor([factors[pair] for pair in known], dtype=torch.float64)
    betas = factor_betas(given, beta=beta, weight=settings.margin_weight)
    return WeighedPairs(pairs=known, betas=tuple(betas.tolist()), margins=(), num_dropped=len(pairs) - len(known))


def step_beta(margins: np.ndarray, *, beta: float, weight: float, seed: int, step: int) -> float:
    """One β for all pairs of a step in mode ``batch_implicit``, by a draw that depends on seed and step alone.

    Args:
        margins: float64 ``[P]``, nats: of every pair of the step how much more the policy has moved towards the chosen.
        beta: β of the configuration, 1/nats.
        weight: w, per nat.
    Raises:
        ValueError: see ``implicit_beta``.
    """
    generator = torch.Generator().manual_seed(sample_seed(seed, "implicit beta", 0, step))
    z = torch.from_numpy(margins)
    return float(implicit_beta(z, implicit_sample(z, generator=generator), beta=beta, weight=weight))


def _by_margin(
    uid: str,
    pairs: tuple[tuple[int, int], ...],
    settings: BetaSettings,
    beta: float,
    rewards: tuple[np.ndarray, ...],
) -> WeighedPairs | str:
    known = [pair for pair in pairs if all(len(rewards[i]) for i in pair)]
    if not known:
        return "no pair of it has a reward on both sides"
    margins = torch.tensor([float(rewards[c][0]) - float(rewards[r][0]) for c, r in known], dtype=torch.float64)
    made = margin_betas(
        margins,
        beta=beta,
        weight=settings.margin_weight,
        steepness=settings.margin_steepness,
        negative=settings.negative_margin,
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
