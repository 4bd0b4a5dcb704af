"""One optimizer step of the policy, whatever it learns from."""

from collections.abc import Sequence
from typing import Any, Literal

from orchestrator.cluster.pool import WorkerPool
from orchestrator.run.guards import check_finite
from workers.objectives import UpdateStats


def optimizer_step(
    pool: WorkerPool,
    samples: Sequence[Any],
    plan: Sequence[Sequence[Sequence[int]]],
    *,
    nonfinite: Literal["stop", "skip"],
    deadline_s: float,
) -> list[UpdateStats] | None:
    """Share one batch among the ranks and step; None where the step was skipped for what is not finite.

    Args:
        plan: For each rank its micro-batches, as indices of ``samples``.
    Raises:
        GuardStop: it was not finite, and ``nonfinite`` is ``stop``.
    """
    per_rank = [[[samples[i] for i in batch] for batch in batches] for batches in plan]
    stats = pool.policy_update(per_rank, deadline_s=deadline_s)
    return stats if check_finite(stats, action=nonfinite) else None
