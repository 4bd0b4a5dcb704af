"""One offline step: from the next examples of the store to an optimizer step."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from algorithms.maths.kto import kto_baseline
from algorithms.records import PreferenceGroup
from algorithms.records import Sequence as TokenSequence
from orchestrator.data.examples import Example
from orchestrator.data.pair_betas import step_beta
from orchestrator.errors import GuardStop
from orchestrator.run.checkpoint import Progress
from orchestrator.run.metrics import PhaseClock
from orchestrator.training.groups import mismatched_sequences, score_ratios, with_beta
from orchestrator.training.held_out import pair_margins
from orchestrator.training.offline_metrics import batch_digest48, coupled_metrics, margin_metrics
from orchestrator.training.offline_session import Metrics, OfflineSession
from orchestrator.training.reference import by_example
from orchestrator.training.reward_groups import reward_groups, with_room
from orchestrator.training.updates import Update, optimizer_step, step_ask, step_samples, update_figures


def train_step(session: OfflineSession, progress: Progress, clock: PhaseClock) -> tuple[Progress, Metrics]:
    """One optimizer step on the next examples of the store."""
    with session.phase("data", clock):
        examples, cursor, passed_over = session.stream.take(progress.cursor, session.config.policy.train_batch_size)
    extra: Metrics = {}
    match session.algorithm.loss:
        case "sft":
            (samples,) = step_samples(session.config.learner, examples, step_ask(session.config, progress)).updates
            update = _learn(session, samples, clock)
        case "kto":
            groups, extra = _labelled(session, examples, clock)
            update = _learn(session, groups, clock)
        case "kto_pair":
            groups, extra = _coupled(session, examples, clock)
            update = _learn(session, groups, clock)
        case "critique_rm":
            groups, extra = _critiqued(session, examples, progress, clock)
            update = _learn(session, groups, clock)
        case "dpo" if session.algorithm.weighs_pairs and session.config.mm_dpo.beta_mode == "batch_implicit":
            groups, extra = _with_implicit_beta(session, examples, progress.step, clock)
            update = _learn(session, groups, clock)
        case _:
            update = _learn(session, _paired(session, examples, clock), clock)
    done = Progress(
        step=progress.step + 1,
        num_updates=progress.num_updates + update.taken,
        policy_version=progress.policy_version + update.taken,
        cursor=cursor,
    )
    counted = {
        "data/epoch": float(cursor.epoch),
        "data/batch_digest48": batch_digest48(examples),
        "data/passed_over": float(len(passed_over)),
        "guard/skipped_updates": float(not update.taken),
    }
    return done, update_figures([update.ranks]) | margin_metrics(examples) | extra | counted | session.memory()


def _paired(session: OfflineSession, examples: Sequence[Example], clock: PhaseClock) -> list[PreferenceGroup]:
    with session.phase("reference", clock):
        return session.groups.pairs(examples, session.reference.of_examples(examples))


def _labelled(
    session: OfflineSession, examples: Sequence[Example], clock: PhaseClock
) -> tuple[list[PreferenceGroup], Metrics]:
    """KTO: the baseline is what policy and reference think of responses to other instructions."""
    with session.phase("reference", clock):
        mixed = mismatched_sequences(examples, longest=session.longest_row)
        if not mixed:
            told = (
                f"KTO's baseline: no response fits behind another instruction's prompt in {session.longest_row} tokens"
            )
            raise GuardStop(told)
        own = [s for e in examples for s in e.sequences]
        # Asked together: strangers and siblings share prompts and images.
        answers = session.reference.of_sequences([*mixed, *own])
        of_reference, refs = answers[: len(mixed)], by_example(examples, answers[len(mixed) :])
    with session.phase("baseline", clock):
        of_policy = _policy_logprobs(session, mixed)
        ratios = [
            p.sum(dtype=np.float64) - r.sum(dtype=np.float64) for p, r in zip(of_policy, of_reference, strict=True)
        ]
        if not np.isfinite(ratios).all():
            at = mixed[int(np.flatnonzero(~np.isfinite(ratios))[0])]
            raise GuardStop(f"the log-probs of prompt {at.uid}, for KTO's baseline, are not finite")
        baseline = kto_baseline(float(sum(ratios)), len(ratios))
    return session.groups.labels(examples, refs, baseline=baseline), {
        "preference/baseline": baseline,
        "preference/num_mismatched": float(len(mixed)),
    }


def _coupled(
    session: OfflineSession, examples: Sequence[Example], clock: PhaseClock
) -> tuple[list[PreferenceGroup], Metrics]:
    groups = _paired(session, examples, clock)
    with session.phase("baseline", clock):
        ratios = _ratios(session, groups)
    figures = coupled_metrics(groups, ratios, beta=session.config.preference.beta)
    return session.groups.coupled(groups, ratios), figures


def _critiqued(
    session: OfflineSession, examples: Sequence[Example], progress: Progress, clock: PhaseClock
) -> tuple[list[PreferenceGroup], Metrics]:
    """Rewards are read off people's critiques, or, by ``critique_rm.scheduled_sampling``, off the model's own."""
    generated: list[list[TokenSequence | None]] = []
    metrics: Metrics = {}
    if session.generated is not None and session.generated.is_due(progress.step):
        with session.phase("rollout", clock):
            generated = with_room(
                examples,
                session.generated.write(examples, progress.policy_version),
                share_prompts=session.share_prompts,
                token_budget=session.config.policy.tokens_per_microbatch,
            )
        flat = [sequence for row in generated for sequence in row]
        metrics = {"critique/generated_frac": sum(s is not None for s in flat) / len(flat)}
    groups = reward_groups(
        examples, session.config.critique_rm, share_prompts=session.share_prompts, generated=generated
    )
    return groups, metrics


def _with_implicit_beta(
    session: OfflineSession, examples: Sequence[Example], step: int, clock: PhaseClock
) -> tuple[list[PreferenceGroup], Metrics]:
    """One β for the step, drawn here and so the same on every rank."""
    config, groups = session.config, _paired(session, examples, clock)
    with session.phase("baseline", clock):
        margins = [pair_margins(g, r) for g, r in zip(groups, _ratios(session, groups), strict=True)]
    for group, of_group in zip(groups, margins, strict=True):
        if not np.isfinite(of_group).all():
            raise GuardStop(f"the log-probs of prompt {group.uid}, for the step's beta, are not finite")
    beta = step_beta(
        np.concatenate(margins),
        beta=config.preference.beta,
        weight=config.mm_dpo.margin_weight,
        seed=config.run.seed,
        step=step,
    )
    return with_beta(groups, beta), {"beta/mean": beta, "beta/max": beta}


def _ratios(session: OfflineSession, groups: Sequence[PreferenceGroup]) -> list[np.ndarray]:
    rows = iter(_policy_logprobs(session, [s for g in groups for s in g.sequences]))
    return [score_ratios(g, [next(rows) for _ in g.sequences]) for g in groups]


def _policy_logprobs(session: OfflineSession, sequences: Sequence[TokenSequence]) -> list[np.ndarray]:
    scored = session.pool.policy_score(sequences, deadline_s=session.deadline_s)
    return [row[s.prompt_len :] for s, row in zip(sequences, scored, strict=True)]


def _learn(session: OfflineSession, samples: Sequence[Any], clock: PhaseClock) -> Update:
    with session.phase("train", clock):
        return optimizer_step(
            session.pool,
            samples,
            num_ranks=session.config.policy.num_ranks,
            nonfinite=session.config.guard.nonfinite,
            deadline_s=session.deadline_s,
        )
