"""From a step's answers to its updates, a verified sync and the figures: what every way to sample them shares."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from algorithms.maths.logprobs import Mismatch
from algorithms.records import Rollout
from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.feed import completion_sequences, with_their_prompts
from orchestrator.cluster.sync import SyncResult
from orchestrator.config.schema import TrainConfig
from orchestrator.evaluation.right import is_judging
from orchestrator.rewards.reward import check_coverage, check_unknown
from orchestrator.run.checkpoint import Progress
from orchestrator.run.guards import Remedy, mismatch_in, mismatch_of, mismatch_remedy
from orchestrator.run.metrics import PhaseClock
from orchestrator.run.rollout_store import write_rollouts
from orchestrator.training.answering import Answering
from orchestrator.training.online_metrics import Rate, Sampled, StepRecord, answer_figures, online_metrics, rollout_rows
from orchestrator.training.refills import Drawn
from orchestrator.training.session import Metrics
from orchestrator.training.staleness import drift_figures, sampled_by
from orchestrator.training.updates import Update, after_updates, step_samples, take_updates
from workers.columns import behind_prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What the policy made of a step's answers."""

    done: Progress
    """Where the run stands after them."""
    figures: Metrics
    """What is known of the answers and of the algorithm's samples."""
    updates: tuple[Update, ...]
    """Those that were tried."""
    num_planned: int
    """Those, and those for which there were no samples with a reward."""
    mismatch: Mismatch | None
    remedy: Remedy


def check_learnable(config: TrainConfig, found: Drawn) -> None:
    """Stop before anything is done with a step's answers where too few of them have a reward.

    Raises:
        GuardStop: with the share and the bound.
    """
    check_coverage(found.rewards, minimum=config.reward.min_coverage)
    check_unknown(found.rewards, most=config.max_unknown)


@dataclass(frozen=True, slots=True)
class Kept:
    """A step's answers, whose rollouts are on disk behind the block of ``stored``."""

    found: Drawn
    """Without texts."""
    figures: Metrics
    """Of the answers; empty inside the block."""


@contextmanager
def stored(answering: Answering, step: int, found: Drawn) -> Iterator[Kept]:
    """Keep the rollouts of a step while they are learned from; the block has them without texts, which nobody reads.

    The file takes seconds of a processor, in which other threads go on, and the texts hundreds of megabytes.
    """
    file, judging = answering.session.folder.rollout_file(step), is_judging(answering.train)

    def write(all_of_it: Drawn) -> Metrics:
        rows = rollout_rows(all_of_it.prompts, all_of_it.sampled, judging=judging)
        write_rollouts(file, rows)
        return answer_figures(rows)

    with ThreadPoolExecutor(1, thread_name_prefix="rollouts") as beside:
        written = beside.submit(write, found)
        kept = Kept(replace(found, sampled=replace(found.sampled, texts={})), {})
        del found
        yield kept
    kept.figures.update(written.result())


def learn(answering: Answering, progress: Progress, found: Drawn, clock: PhaseClock) -> Learned:
    """All optimizer steps of a step.

    Of answers that earlier weights sampled the old log-probs are those of the present ones, and every token counts by
    how much likelier it is under these than it was: π_present / π_sampled, bounded above.
    """
    session = answering.session
    config, is_stale = session.config, session.config.rollout.staleness > 0
    with session.phase("train", clock):
        answering.engines.sleep()
        # A single update finds the old log-probs in its own forward; with a strike, they decide what is done to it.
        planned = config.updates_per_epoch * config.learner.epochs_at(progress.step)
        refers = bool(session.pool.role("reference").actors)
        ask_first = planned != 1 or refers or progress.mismatch_strikes > 0 or is_stale
        rollouts = rollouts_of(answering, found.sampled, ask_first=ask_first)
        learned = step_samples(config.learner, rollouts, answering.ask.at(progress, clock))
        # Between other weights the gap is what was learned meanwhile, and says nothing of engine and trainer.
        present = sampled_by(progress.policy_version, rollouts, found.sampled.spans) if is_stale else None
        mismatch, remedy, strikes = mismatch_of(rollouts, among=present), "none", progress.mismatch_strikes
        if mismatch is not None:
            remedy, strikes = mismatch_remedy(mismatch, strikes, bound=config.guard.max_mismatch)
        elif is_stale:  # nothing that could be compared: a step in a row is not counted on
            strikes = 0
        ahead = replace(progress, step=progress.step + 1, cursor=found.cursor, learner_state=learned.state)
        correct = is_stale or remedy in ("correct", "resync")
        samples = [config.learner.corrected(some) if correct else some for some in learned.updates]
        updates = take_updates(session, samples, ahead, critic=learned.critic)
        taken = [u.ranks for u in updates if u.taken and u.role == "policy"]
        if mismatch is None and (mismatch := mismatch_in(taken)) is not None:
            _, strikes = mismatch_remedy(mismatch, strikes, bound=config.guard.max_mismatch)
    weighing = config.learner.weighing
    drift = drift_figures(rollouts, weighing) if is_stale and weighing is not None else {}
    return Learned(
        done=replace(after_updates(ahead, updates), mismatch_strikes=strikes),
        figures={**learned.figures, **found.figures, **drift},
        updates=tuple(updates),
        num_planned=planned,
        mismatch=mismatch,
        remedy=remedy,
    )


def synced(answering: Answering, learned: Learned, seen: Sequence[str], clock: PhaseClock) -> SyncResult:
    """Bring what was learned to the engines, and prove it.

    Args:
        seen: Prompts that engines were asked since their caches were last emptied.
    """
    with answering.session.phase("sync", clock):
        if learned.remedy == "resync":
            answering.engines.require_full_sync()
        return answering.verified_sync(learned.done.policy_version, seen)


@contextmanager
def told_anyway(answering: Answering, learned: Learned, kept: Kept, rate: Rate, clock: PhaseClock) -> Iterator[None]:
    """Tell a step's figures where what follows its updates fails: a checkpoint may count the step."""
    try:
        yield
    except Exception:
        session = answering.session
        metrics = recorded(answering, learned, kept, None, rate)
        session.report(learned.done.step, {**metrics, **clock.metrics(), **session.memory()})
        raise


def recorded(answering: Answering, learned: Learned, kept: Kept, sync: SyncResult | None, rate: Rate) -> Metrics:
    """The step's figures; without a sync those of the sync are missing."""
    record = StepRecord(
        sampled=kept.found.sampled,
        figures={**kept.figures, **learned.figures},
        mismatch=learned.mismatch,
        updates=learned.updates,
        num_planned_updates=learned.num_planned,
        sync=sync,
        rate=rate,
        mismatch_strikes=learned.done.mismatch_strikes,
        num_engine_restarts=answering.engines.num_restarts,
        learns_stale=answering.session.config.rollout.staleness > 0,
        sources={uid: prompt.source for uid, prompt in kept.found.prompts.items() if prompt.source},
    )
    return online_metrics(record)


def rollouts_of(answering: Answering, sampled: Sampled, *, ask_first: bool) -> list[Rollout]:
    """Join completions with the trainer's view of them, where it is asked before the update."""
    completions = with_their_prompts(sampled.requests, sampled.completions)
    sequences = completion_sequences(sampled.requests, completions)
    prompt_lens = [s.prompt_len for s in sequences]
    _, sampled_logprobs = completions.with_prompts()
    told = _told(answering, sampled, sequences, ask_first=ask_first)
    if sampled.ref_logprobs:
        told["reference"] = behind_prompts(sampled.ref_logprobs, prompt_lens)
    unknown = [None] * len(sequences)
    return [
        Rollout(
            sequence=s,
            reward=reward.value,
            rollout_logprobs=logprobs,
            old_logprobs=old,
            ref_logprobs=ref,
            values=value,
            parts=reward.parts if reward.weights else {},
            part_weights=reward.weights,
        )
        for s, logprobs, reward, old, ref, value in zip(
            sequences,
            sampled_logprobs,
            sampled.rewards,
            *(told.get(role, unknown) for role in ("policy", "reference", "critic")),
            strict=True,
        )
    ]


def _told(
    answering: Answering, sampled: Sampled, sequences: Sequence[TokenSequence], *, ask_first: bool
) -> dict[str, Sequence[Any]]:
    """What policy, reference and critic say of the sequences, by role: those that are there and not known yet."""
    session, pool = answering.session, answering.session.pool
    known: dict[str, Any] = {"deadline_s": session.deadline_s}
    scored = {**known, "sampling": answering.sampling}
    asks: dict[str, Callable[[], Callable[[], list[Any]]]] = {}
    if ask_first:
        asks["policy"] = partial(pool.role("policy").begin_each, "score", sequences, **scored)
    if pool.role("reference").actors and not sampled.ref_logprobs:
        asks["reference"] = partial(pool.role("reference").begin_each, "score", sequences, **scored)
    if pool.role("critic").actors:
        read = [session.config.learner.seen_by_critic(s, answering.ask) for s in sequences]
        asks["critic"] = partial(pool.role("critic").begin_each, "values", read, **known)
    if session.config.placement.layout == "colocated":  # they share processors and memory, and take turns
        return {role: ask()() for role, ask in asks.items()}
    begun = {role: ask() for role, ask in asks.items()}
    return {role: answers() for role, answers in begun.items()}
