"""What stops a run that has gone wrong, and what is tried before."""

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from algorithms.figures import added
from algorithms.maths.logprobs import Mismatch, mismatch_of_gaps
from algorithms.records import Rollout
from algorithms.tokens import MISMATCH
from orchestrator.errors import GuardStop
from workers.types import RankUpdate

_log = logging.getLogger(__name__)
_SHOWN = 5
Remedy = Literal["none", "warn", "correct", "resync"]
_LADDER: tuple[Remedy, ...] = ("none", "warn", "correct", "resync")


def check_finite(ranks: Sequence[RankUpdate], *, action: Literal["stop", "skip"]) -> bool:
    """Whether the optimizer step was taken.

    Raises:
        GuardStop: it was not, because of samples it names, and ``action`` is ``stop``.
    """
    nonfinite = [uid for rank in ranks for uid in rank.nonfinite]
    if not nonfinite:
        return True
    named = ", ".join(nonfinite[:_SHOWN])
    said = f"the loss or gradient of {len(nonfinite)} samples is not finite ({named}); no optimizer step was taken"
    if action == "stop":
        raise GuardStop(f"{said}; guard.nonfinite = 'skip' goes on without it")
    _log.warning(said)
    return False


def mismatch_remedy(mismatch: Mismatch, strikes: int, *, bound: float) -> tuple[Remedy, int]:
    """What to do about the gap between the trainer's and the engines' log-probs, and the strikes counted by then.

    Each step in a row beyond the bound goes one further: warn, correct the batch by truncated importance sampling,
    do that and carry all weights to the engines afresh, stop. A step within the bound starts again.

    Raises:
        GuardStop: everything else has been tried.
    """
    if mismatch.abs_mean <= bound:
        return "none", 0
    strikes += 1
    said = (
        f"engine and trainer differ by {mismatch.abs_mean:.3g} nats a token on average (guard.max_mismatch = {bound:g})"
    )
    if strikes == len(_LADDER):
        raise GuardStop(f"{said} in step after step, also after a correction and a full weight sync")
    _log.warning("%s: %s", said, _LADDER[strikes])
    return _LADDER[strikes], strikes


def mismatch_of(rollouts: Sequence[Rollout], *, among: Sequence[np.ndarray] | None = None) -> Mismatch | None:
    """The gap on the rollouts that have a reward; None where the trainer's log-probs are not known yet.

    Args:
        among: bool ``[T]`` for each rollout, tokens that are looked at; None looks at all. Where there is none, nor is
            there a gap.
    """
    masks: Sequence[np.ndarray | None] = [None] * len(rollouts) if among is None else among
    known = [(r, m) for r, m in zip(rollouts, masks, strict=True) if r.reward is not None]
    known = [(r, m) for r, m in known if r.old_logprobs is not None]
    if not known or (among is not None and not any(m is not None and m[_behind(r)].any() for r, m in known)):
        return None
    # Written in place, piece by piece: of a large step every array of all tokens takes hundreds of megabytes.
    ends = np.cumsum([len(r.sequence.input_ids) - r.sequence.prompt_len for r, _ in known]).tolist()
    gap, usable, num_masked = np.empty(ends[-1], np.float32), np.empty(ends[-1], bool), 0
    for (r, mask), begin, end in zip(known, [0, *ends[:-1]], ends, strict=True):
        assert r.old_logprobs is not None
        own, sampled = _behind(r), r.rollout_logprobs[_behind(r)]
        np.subtract(r.old_logprobs[own], sampled, out=gap[begin:end])
        np.isfinite(sampled, out=usable[begin:end])
        num_masked += end - begin if mask is None else int(mask[own].sum())
        if mask is not None:
            usable[begin:end] &= mask[own]
    num_nonfinite = num_masked - int(usable.sum())
    return mismatch_of_gaps(torch.from_numpy(gap), torch.from_numpy(usable), num_nonfinite=num_nonfinite)


def _behind(rollout: Rollout) -> slice:
    return slice(rollout.sequence.prompt_len, None)


def mismatch_in(updates: Sequence[Sequence[RankUpdate]]) -> Mismatch | None:
    """The same gap as the ranks met it in their own forward; None where no update was taken that looked at it."""
    found = added(rank.figures for update in updates for rank in update)
    if any(figure.name not in found for figure in MISMATCH):
        return None
    mean, most, unscored = (found[figure.name].value or 0.0 for figure in MISMATCH)
    return Mismatch(mean, most, int(unscored))
