"""One optimizer step of the policy, whatever it learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.cluster.pool import WorkerPool
from orchestrator.run.guards import check_finite
from workers.objectives import UpdateStats


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step that was tried."""

    ranks: list[UpdateStats]
    """What each rank met."""
    taken: bool
    """False where something was not finite: then no rank has stepped."""


def optimizer_step(
    pool: WorkerPool,
    samples: Sequence[Any],
    plan: Sequence[Sequence[Sequence[int]]],
    *,
    nonfinite: Literal["stop", "skip"],
    deadline_s: float,
) -> Update:
    """Share one batch among the ranks and step.

    Args:
        plan: For each rank its micro-batches, as indices of ``samples``.
    Raises:
        GuardStop: it was not finite, and ``nonfinite`` is ``stop``.
    """
    per_rank = [[[samples[i] for i in batch] for batch in batches] for batches in plan]
    stats = pool.policy_update(per_rank, deadline_s=deadline_s)
    return Update(stats, check_finite(stats, action=nonfinite))
