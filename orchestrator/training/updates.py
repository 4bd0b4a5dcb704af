"""From what an algorithm makes of a batch to optimizer steps of the policy, and what they report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from algorithms.algorithm import Algorithm, Ask, Sample, StepSamples, Unlearnable
from algorithms.figures import Figure, added, values
from orchestrator.cluster.pool import WorkerPool
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import GuardStop
from orchestrator.run.checkpoint import Progress
from orchestrator.run.cursor import split_whole
from orchestrator.run.guards import check_finite
from workers.types import RankUpdate

_GRAD_NORM, _LR = "policy/grad_norm", "policy/lr"
SKIPPED = Figure(
    "guard/skipped_updates",
    "optimizer steps not taken, because a loss or gradient was not finite or no sample was left that has a reward",
)
FIGURES = (
    Figure("policy/loss", "training objective, mean over the step's updates", "Policy loss"),
    Figure(_GRAD_NORM, "global norm before clipping", "Gradient norm before clipping", "norm"),
    Figure(_LR, "learning rate, mean over the step's updates"),
    SKIPPED,
)
"""Of every step."""


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step that was tried."""

    ranks: list[RankUpdate]
    """What each rank met."""
    taken: bool
    """False where something was not finite: then no rank has stepped."""


class _StepAsk:
    def __init__(self, config: TrainConfig, progress: Progress) -> None:
        self._config, self._epoch = config, progress.policy_version

    @property
    def longest_response(self) -> int:
        return self._config.rollout.max_new_tokens

    def deal(self, uids: Sequence[str]) -> list[list[int]]:
        return split_whole(uids, self._config.updates_per_step, seed=self._config.run.seed, epoch=self._epoch)


def step_ask(config: TrainConfig, progress: Progress) -> Ask:
    """The part of the answers that algorithms of tokens ask for."""
    return cast(Ask, _StepAsk(config, progress))


def step_samples(learner: Algorithm, batch: Sequence[Any], ask: Ask) -> StepSamples:
    """What the algorithm learns from.

    Raises:
        GuardStop: from this batch, nothing.
    """
    try:
        return learner.samples(batch, ask)
    except Unlearnable as error:
        raise GuardStop(str(error)) from error


def optimizer_step(
    pool: WorkerPool,
    samples: Sequence[Sample],
    *,
    num_ranks: int,
    nonfinite: Literal["stop", "skip"],
    deadline_s: float,
) -> Update:
    """Share one batch among the ranks and step.

    Raises:
        GuardStop: it was not finite, and ``nonfinite`` is ``stop``.
    """
    if all(len(sample.sequences) == 1 for sample in samples):
        # Such a sample can share its prompt with others; one of several sequences has shared it already.
        plan = pool.microbatches([sample.sequences[0] for sample in samples], num_ranks=num_ranks)
    else:
        plan = pool.group_microbatches(samples, num_ranks=num_ranks)
    per_rank = [[[samples[i] for i in batch] for batch in batches] for batches in plan]
    ranks = pool.policy_update(per_rank, deadline_s=deadline_s)
    return Update(ranks, check_finite(ranks, action=nonfinite))


def update_figures(updates: Sequence[Sequence[RankUpdate]]) -> dict[str, float]:
    """Means over optimizer steps; within one the shares of all ranks are added up."""
    rows = [
        {
            **values(added(rank.figures for rank in ranks)),
            _GRAD_NORM: ranks[0].grad_norm,
            _LR: ranks[0].lr,
        }
        for ranks in updates
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
