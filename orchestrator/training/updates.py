"""From what an algorithm makes of a batch to optimizer steps of the policy, and what they report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from algorithms.algorithm import Algorithm, Ask, Sample, StepSamples, Unlearnable
from algorithms.figures import Figure, added, values
from orchestrator.cluster.pool import WorkerPool
from orchestrator.errors import GuardStop
from orchestrator.run.checkpoint import Progress
from orchestrator.run.guards import check_finite
from orchestrator.training.session import Session
from workers.types import RankUpdate

_Learner = Literal["policy", "critic"]
_GRAD_NORM, _LR, _SKIPPED = "policy/grad_norm", "policy/lr", "guard/skipped_updates"
FIGURES = (
    Figure(_GRAD_NORM, "global norm before clipping", "Gradient norm before clipping", "norm"),
    Figure("policy/loss", "training objective, mean over the step's updates", "Policy loss"),
    Figure(_LR, "learning rate, mean over the step's updates"),
    Figure(
        _SKIPPED,
        "optimizer steps not taken, because a loss or gradient was not finite or no sample was left that has a reward",
    ),
)
"""Of every step."""


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step that was tried."""

    ranks: list[RankUpdate]
    """What each rank met."""
    taken: bool
    """False where something was not finite: then no rank has stepped."""
    role: _Learner = "policy"


def step_samples(learner: Algorithm, batch: Sequence[Any], ask: Ask) -> StepSamples:
    """What the algorithm learns from.

    Raises:
        GuardStop: from this batch, nothing.
    """
    try:
        return learner.samples(batch, ask)
    except Unlearnable as error:
        raise GuardStop(str(error)) from error


def take_updates(
    session: Session,
    updates: Sequence[Sequence[Sample]],
    ahead: Progress,
    *,
    critic: Sequence[Sequence[Sample]] = (),
) -> list[Update]:
    """All optimizer steps of one step, one after the other; the critic's behind the policy's of the same rollouts.

    Args:
        updates: The samples of each.
        ahead: Where the run stands after this step, had it none.
        critic: Its samples of each; empty without one.
    Raises:
        GuardStop: one was not finite, and ``guard.nonfinite`` is ``stop``.
    """
    config, tried = session.config, list[Update]()
    in_turn = list[tuple[_Learner, Sequence[Sample]]]()
    for index in range(max(len(updates), len(critic))):  # either may go through the samples more often
        in_turn.extend(("policy", samples) for samples in updates[index : index + 1])
        in_turn.extend(("critic", samples) for samples in critic[index : index + 1])
    for role, samples in in_turn:
        update = _optimizer_step(
            session.pool,
            samples,
            role=role,
            num_ranks=config.policy.num_ranks,
            nonfinite=config.guard.nonfinite,
            deadline_s=session.deadline_s,
        )
        tried.append(update)
        if update.taken:
            session.reached = after_updates(ahead, tried)
    return tried


def after_updates(ahead: Progress, tried: Sequence[Update]) -> Progress:
    """Where the run stands after these optimizer steps of its next step."""
    policy, critic = (sum(u.taken for u in tried if u.role == role) for role in ("policy", "critic"))
    return replace(
        ahead,
        num_updates=ahead.num_updates + policy,
        policy_version=ahead.policy_version + policy,
        num_critic_updates=ahead.num_critic_updates + critic,
    )


def _optimizer_step(
    pool: WorkerPool,
    samples: Sequence[Sample],
    *,
    role: _Learner,
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
    ranks = pool.role(role).update(per_rank, deadline_s=deadline_s)
    return Update(ranks, check_finite(ranks, action=nonfinite), role)


def update_figures(tried: Sequence[Update], *, planned: int) -> dict[str, float]:
    """Means over the optimizer steps taken, or tried where none was; within one the shares of all ranks add up.

    Args:
        planned: Optimizer steps of the policy that there would have been with samples for all.
    """
    taken = sum(update.taken for update in tried if update.role == "policy")
    of_critic = [update for update in tried if update.role == "critic"]
    means = _means([update for update in tried if update.role == "policy"], role="policy")
    return {**means, **_means(of_critic, role="critic"), _SKIPPED: float(planned - taken)}


def _means(tried: Sequence[Update], *, role: str) -> dict[str, float]:
    taken = [update.ranks for update in tried if update.taken]
    rows = [
        {
            **values(added(rank.figures for rank in ranks)),
            f"{role}/grad_norm": ranks[0].grad_norm,
            f"{role}/lr": ranks[0].lr,
        }
        for ranks in taken or [update.ranks for update in tried]
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
