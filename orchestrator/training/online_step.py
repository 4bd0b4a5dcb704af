"""One online step: a rollout, its rewards and updates, and a verified sync."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from algorithms.algorithm import StepSamples
from algorithms.records import Rollout
from orchestrator.cluster.feed import build_requests, completion_sequence
from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.critique_judge import Question, with_critiques
from orchestrator.rewards.reward import Reward, RewardItem, check_coverage, check_unknown
from orchestrator.run.checkpoint import Progress
from orchestrator.run.cursor import PromptPick, sample_seed
from orchestrator.run.guards import mismatch_in, mismatch_of, mismatch_remedy
from orchestrator.run.metrics import PhaseClock
from orchestrator.run.rollout_store import write_rollouts
from orchestrator.training.online_metrics import StepRecord, online_metrics, rollout_rows
from orchestrator.training.session import Session
from orchestrator.training.updates import Update, optimizer_step, step_ask, step_samples
from workers.types import Completion, GenerationRequest, Prompt


def train_step(
    session: Session, client: RewardClient, progress: Progress, clock: PhaseClock
) -> tuple[Progress, dict[str, float]]:
    """One rollout, its updates and a verified sync; where the run stands then, and the step's figures."""
    config = session.config
    picks, cursor = progress.cursor.take(config.rollout.prompts_per_step)
    prompts = {p.uid: p for p in (named_prompt(session.train, pick) for pick in picks)}
    with session.phase("rollout", clock):
        session.engines.reset_caches()
        requests = _requests(session, list(prompts.values()), progress.policy_version)
        stream = client.open_stream()
        texts: dict[tuple[str, int], str] = {}

        def finished(completion: Completion) -> None:
            text = session.encoder.decode(completion.completion_ids)
            texts[completion.uid, completion.sample_index] = text
            stream.add(_reward_item(prompts[completion.uid], completion, text))

        completions = session.engines.sample(requests, on_finished=finished)
    with session.phase("reward", clock):
        by_id = stream.results()
        rewards = [by_id[f"{c.uid}/{c.sample_index}"] for c in completions]
        if session.critics is not None:
            questions = [Question(prompts[c.uid], texts[c.uid, c.sample_index]) for c in completions]
            answers = session.critics.judge(questions)
            rewards = with_critiques(rewards, answers, weight=config.reward.critique.weight)
        check_coverage(rewards, minimum=config.reward.min_coverage)
        check_unknown(rewards, most=config.max_unknown)
    with session.phase("train", clock):
        session.engines.sleep()
        # A single update finds the old log-probs in its own forward; with a strike, they decide what is done to it.
        ask_first = config.updates_per_step > 1 or bool(session.pool.reference) or progress.mismatch_strikes > 0
        rollouts = _rollouts(session, requests, completions, rewards, ask_first=ask_first)
        learned = step_samples(config.learner, rollouts, step_ask(config, progress))
        mismatch, remedy, strikes = mismatch_of(rollouts), "none", progress.mismatch_strikes
        if mismatch is not None:
            remedy, strikes = mismatch_remedy(mismatch, strikes, bound=config.guard.max_mismatch)
        ahead = replace(progress, step=progress.step + 1, cursor=cursor)
        updates = _update(session, learned, ahead, correct=remedy in ("correct", "resync"))
        taken = [u.ranks for u in updates if u.taken]
        if mismatch is None and (mismatch := mismatch_in(taken)) is not None:
            _, strikes = mismatch_remedy(mismatch, strikes, bound=config.guard.max_mismatch)
    done = replace(_after(ahead, len(taken)), mismatch_strikes=strikes)
    with session.phase("sync", clock):
        if remedy == "resync":
            session.engines.require_full_sync()
        sync = session.verified_sync(done.policy_version, [uid for uid in prompts if "~" not in uid])
    record = StepRecord(
        prompts=tuple(prompts.values()), requests=tuple(requests), completions=tuple(completions),
        rewards=tuple(rewards), figures=learned.figures, mismatch=mismatch, updates=tuple(taken), sync=sync,
        rollout_s=clock.metrics()["time/rollout_s"],
        skipped=tuple(u.ranks for u in updates if not u.taken),
        num_skipped_updates=config.updates_per_step - len(taken), mismatch_strikes=strikes,
        num_engine_restarts=session.engines.num_restarts,
    )  # fmt: skip
    write_rollouts(session.folder.rollout_file(done.step), rollout_rows(record, texts))
    session.reached = None
    return done, online_metrics(record)


def named_prompt(prompts: Sequence[Prompt], pick: PromptPick) -> Prompt:
    """The picked prompt; one that stands in its batch again gets a name of its own."""
    prompt = prompts[pick.index]
    return prompt if pick.repeat == 0 else replace(prompt, uid=f"{prompt.uid}~{pick.repeat}")


def _requests(session: Session, prompts: Sequence[Prompt], policy_version: int) -> list[GenerationRequest]:
    config = session.config
    return build_requests(
        [session.encoder.encode(p) for p in prompts],
        samples_per_prompt=config.rollout.samples_per_prompt,
        seed_of=lambda uid, index: sample_seed(config.run.seed, uid, index, policy_version),
        max_new_tokens=config.rollout.max_new_tokens,
        temperature=config.rollout.temperature,
        top_p=1.0,
    )


def _reward_item(prompt: Prompt, completion: Completion, text: str) -> RewardItem:
    return RewardItem(
        uid=completion.uid,
        sample_index=completion.sample_index,
        prompt=prompt.meta.get("question", ""),
        response=text,
        label=prompt.label,
        media=tuple(m.sha256 for m in prompt.media),
    )


def _rollouts(
    session: Session,
    requests: Sequence[GenerationRequest],
    completions: Sequence[Completion],
    rewards: Sequence[Reward],
    *,
    ask_first: bool,
) -> list[Rollout]:
    """Join completions with the trainer's view of them, where it is asked before the update."""
    sequences = [completion_sequence(r, c) for r, c in zip(requests, completions, strict=True)]
    old: list[np.ndarray | None] = [None] * len(sequences)
    refs: list[np.ndarray | None] = [None] * len(sequences)
    if ask_first:
        old = list(session.pool.policy_score(sequences, deadline_s=session.deadline_s, sampling=session.sampling))
    if session.pool.reference:
        refs = list(session.pool.reference_score(sequences, deadline_s=session.deadline_s, sampling=session.sampling))
    return [
        Rollout(
            sequence=s,
            reward=reward.value,
            rollout_logprobs=np.concatenate([np.zeros(s.prompt_len, np.float32), c.rollout_logprobs]),
            old_logprobs=o,
            ref_logprobs=ref,
        )
        for s, c, reward, o, ref in zip(sequences, completions, rewards, old, refs, strict=True)
    ]


def _update(session: Session, learned: StepSamples, ahead: Progress, *, correct: bool) -> list[Update]:
    """All optimizer steps of one rollout.

    Args:
        ahead: Where the run stands after this step, had it none.
    """
    config, updates = session.config, list[Update]()
    for samples in learned.updates:
        update = optimizer_step(
            session.pool,
            config.learner.corrected(samples) if correct else samples,
            num_ranks=config.policy.num_ranks,
            nonfinite=config.guard.nonfinite,
            deadline_s=session.deadline_s,
        )
        updates.append(update)
        if update.taken:
            session.reached = _after(ahead, sum(u.taken for u in updates))
    return updates


def _after(ahead: Progress, num_updates: int) -> Progress:
    return replace(
        ahead,
        num_updates=ahead.num_updates + num_updates,
        policy_version=ahead.policy_version + num_updates,
    )
