"""What stops a run that has gone wrong, and what is tried before."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from algorithms.maths.off_policy import Mismatch, truncated_is_weights
from algorithms.records import TrainSample
from orchestrator.errors import GuardStop
from workers.objectives import UpdateStats

_log = logging.getLogger(__name__)
_CAP = 2.0
_SHOWN = 5
Remedy = Literal["none", "warn", "correct", "resync"]
_LADDER: tuple[Remedy, ...] = ("none", "warn", "correct", "resync")


def check_finite(stats: Sequence[UpdateStats], *, action: Literal["stop", "skip"]) -> bool:
    """Whether the optimizer step was taken.

    Raises:
        GuardStop: it was not, because of samples it names, and ``action`` is ``stop``.
    """
    nonfinite = [uid for rank in stats for uid in rank.nonfinite]
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


def mismatch_in(updates: Sequence[Sequence[UpdateStats]]) -> Mismatch | None:
    """The same gap as the ranks met it in their own forward; None where no update was taken."""
    ranks = [rank for update in updates for rank in update]
    if not ranks:
        return None
    unscored = sum(rank.num_unscored for rank in ranks)
    tokens = sum(rank.num_tokens for rank in ranks) - unscored
    return Mismatch(sum(r.gap_sum for r in ranks) / max(1, tokens), max(r.gap_max for r in ranks), unscored)


def corrected(samples: Sequence[TrainSample]) -> list[TrainSample]:
    """Samples with truncated importance weights between trainer and engine folded into their loss weights."""
    out = []
    for sample in samples:
        assert sample.old_logprobs is not None
        old, rollout = torch.from_numpy(sample.old_logprobs), torch.from_numpy(sample.rollout_logprobs)
        mask = torch.from_numpy(sample.loss_weight) > 0
        weights = truncated_is_weights(old[None], rollout[None], mask[None], cap=_CAP)[0].numpy()
        out.append(replace(sample, loss_weight=sample.loss_weight * weights))
    return out
