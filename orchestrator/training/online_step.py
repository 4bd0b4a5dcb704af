"""One online step: a rollout, its rewards and updates, and a verified sync."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from algorithms.figures import Tallies, added
from algorithms.records import Rollout
from orchestrator.cluster.feed import build_requests, completion_sequences
from orchestrator.evaluation.right import is_judging
from orchestrator.rewards.asking import SampleJudge
from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.critique_judge import CritiqueJudge, Question, with_critiques
from orchestrator.rewards.reward import RewardItem, check_coverage, check_unknown
from orchestrator.rewards.service import Unasked
from orchestrator.run.checkpoint import Progress
from orchestrator.run.cursor import PromptPick, sample_seed
from orchestrator.run.guards import mismatch_in, mismatch_of, mismatch_remedy
from orchestrator.run.metrics import PhaseClock
from orchestrator.run.rollout_store import write_rollouts
from orchestrator.training.answering import Answering
from orchestrator.training.online_metrics import Sampled, StepRecord, online_metrics, rollout_rows
from orchestrator.training.refills import drawn
from orchestrator.training.session import Evaluation, Metrics
from orchestrator.training.updates import after_updates, step_samples, take_updates
from workers.columns import behind_prompts
from workers.types import Completion, Completions, GenerationRequest, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineWork:
    """Learning from sampled answers."""

    answering: Answering
    client: RewardClient | Unasked
    judges: Sequence[SampleJudge] = ()
    """Who judges the samples of a prompt beside the client, one after the other."""
    critiques: CritiqueJudge | None = None
    """Who adds to the rewards what a critique reward model thinks; None where nobody does."""

    @property
    def measures_start(self) -> bool:
        """Always."""
        return True

    def step(self, progress: Progress, clock: PhaseClock) -> tuple[Progress, Metrics]:
        """One rollout, its updates and a verified sync."""
        answering, session = self.answering, self.answering.session
        config, engines = session.config, answering.engines
        found = drawn(
            progress.cursor,
            config.rollout.prompts_per_step,
            max_refills=config.rollout.max_refills,
            named=lambda pick: named_prompt(answering.train, pick),
            sample=lambda prompts: self._sample(prompts, progress.policy_version, clock),
        )
        prompts, sampled = found.prompts, found.sampled
        check_coverage(found.rewards, minimum=config.reward.min_coverage)
        check_unknown(found.rewards, most=config.max_unknown)
        with session.phase("train", clock):
            engines.sleep()
            # A single update finds the old log-probs in its own forward; with a strike, they decide what is done to it.
            planned = config.updates_per_epoch * config.learner.epochs_at(progress.step)
            refers = bool(session.pool.role("reference").actors)
            ask_first = planned != 1 or refers or progress.mismatch_strikes > 0
            rollouts = _rollouts(answering, sampled, ask_first=ask_first)
            learned = step_samples(config.learner, rollouts, answering.ask.at(progress, clock))
            mismatch, remedy, strikes = mismatch_of(rollouts), "none", progress.mismatch_strikes
            if mismatch is not None:
                remedy, strikes = mismatch_remedy(mismatch, strikes, bound=config.guard.max_mismatch)
            ahead = replace(progress, step=progress.step + 1, cursor=found.cursor, learner_state=learned.state)
            correct = remedy in ("correct", "resync")
            samples = [config.learner.corrected(some) if correct else some for some in learned.updates]
            updates = take_updates(session, samples, ahead, critic=learned.critic)
            taken = [u.ranks for u in updates if u.taken and u.role == "policy"]
            if mismatch is None and (mismatch := mismatch_in(taken)) is not None:
                _, strikes = mismatch_remedy(mismatch, strikes, bound=config.guard.max_mismatch)
        done = replace(after_updates(ahead, updates), mismatch_strikes=strikes)
        with session.phase("sync", clock):
            if remedy == "resync":
                engines.require_full_sync()
            sync = answering.verified_sync(done.policy_version, [uid for uid in prompts if "~" not in uid])
        judging = is_judging(answering.train)
        write_rollouts(session.folder.rollout_file(done.step), rollout_rows(prompts, sampled, judging=judging))
        record = StepRecord(
            sampled=sampled, figures={**learned.figures, **found.figures}, mismatch=mismatch, updates=tuple(updates),
            num_planned_updates=planned, sync=sync, rollout_s=clock.metrics()["time/rollout_s"],
            mismatch_strikes=strikes, num_engine_restarts=engines.num_restarts,
            sources={uid: prompt.source for uid, prompt in prompts.items() if prompt.source},
        )  # fmt: skip
        return done, online_metrics(record)

    def evaluate(self, progress: Progress, *, last: bool) -> Evaluation:
        """The engines have the policy's weights."""
        return self.answering.evaluate()

    def _sample(self, prompts: Mapping[str, Prompt], policy_version: int, clock: PhaseClock) -> Sampled:
        """Answers to the prompts and their rewards, which are asked for while the engines sample."""
        answering, config = self.answering, self.answering.session.config
        with answering.session.phase("rollout", clock):
            answering.engines.reset_caches()
            requests = _requests(answering, list(prompts.values()), policy_version)
            stream, is_here = self.client.open_stream(), config.reward.url is None
            texts: dict[tuple[str, int], str] = {}

            def finished(arrived: Completions) -> None:
                for completion, text in zip(arrived, answering.encoder.decode_all(arrived.ids()), strict=True):
                    texts[completion.uid, completion.sample_index] = text
                    stream.add(reward_item(prompts[completion.uid], completion, text, is_here=is_here))

            # In a thread of its own, one after the other: engines are fed meanwhile.
            with ThreadPoolExecutor(1, thread_name_prefix="decode") as beside:
                read: list[Future[None]] = []
                completions = answering.engines.sample(
                    requests, on_finished=lambda arrived: read.append(beside.submit(finished, arrived))
                )
                for future in read:
                    future.result()
        with answering.session.phase("reward", clock):
            by_id = stream.results()
            rewards = [by_id[f"{c.uid}/{c.sample_index}"] for c in completions]
            if self.critiques is not None:
                questions = [Question(prompts[c.uid], texts[c.uid, c.sample_index]) for c in completions]
                answers = self.critiques.judge(questions)
                rewards = with_critiques(rewards, answers, weight=config.reward.critique.weight)
            said = [texts[c.uid, c.sample_index] for c in completions]
            shares: list[Tallies] = []
            for judge in self.judges:
                rewards, found = judge.added(rewards, [prompts[c.uid] for c in completions], said)
                shares.append(found)
        return Sampled(
            requests=tuple(requests),
            completions=completions,
            texts=texts,
            rewards=tuple(rewards),
            tallies=added(shares),
        )


def named_prompt(prompts: Sequence[Prompt], pick: PromptPick) -> Prompt:
    """The picked prompt; one that stands in its batch again gets a name of its own."""
    prompt = prompts[pick.index]
    return prompt if pick.repeat == 0 else replace(prompt, uid=f"{prompt.uid}~{pick.repeat}")


def _requests(answering: Answering, prompts: Sequence[Prompt], policy_version: int) -> list[GenerationRequest]:
    config = answering.session.config
    return build_requests(
        [answering.encoder.encode(p) for p in prompts],
        samples_per_prompt=config.rollout.samples_per_prompt,
        seed_of=lambda uid, index: sample_seed(config.run.seed, uid, index, policy_version),
        max_new_tokens=config.rollout.max_new_tokens,
        temperature=config.rollout.temperature,
        top_p=1.0,
    )


def reward_item(prompt: Prompt, completion: Completion, text: str, *, is_here: bool) -> RewardItem:
    """What whoever rewards it is told of a completion, once its engine has finished it.

    Args:
        is_here: Who is asked is on this machine.
    """
    return RewardItem(
        uid=completion.uid,
        sample_index=completion.sample_index,
        prompt=prompt.meta.get("question", ""),
        response=text,
        label=prompt.label,
        media=prompt.media,
        group=completion.uid,
        length=len(completion.completion_ids),
        finish_reason=completion.finish_reason,
        row=prompt.row,
        tells_paths=is_here,
    )


def _rollouts(answering: Answering, sampled: Sampled, *, ask_first: bool) -> list[Rollout]:
    """Join completions with the trainer's view of them, where it is asked before the update."""
    pool, asked = answering.session.pool, {"deadline_s": answering.session.deadline_s, "sampling": answering.sampling}
    sequences = completion_sequences(sampled.requests, sampled.completions)
    engine = behind_prompts(sampled.completions.logprobs(), [s.prompt_len for s in sequences])
    old: list[np.ndarray | None] = [None] * len(sequences)
    refs: list[np.ndarray | None] = [None] * len(sequences)
    values: list[np.ndarray | None] = [None] * len(sequences)
    if ask_first:
        old = list(pool.role("policy").each("score", sequences, **asked))
    if pool.role("reference").actors:
        refs = list(pool.role("reference").each("score", sequences, **asked))
    if pool.role("critic").actors:
        learner, ask = answering.session.config.learner, answering.ask
        read = [learner.seen_by_critic(s, ask) for s in sequences]
        values = list(pool.role("critic").each("values", read, deadline_s=asked["deadline_s"]))
    return [
        Rollout(
            sequence=s,
            reward=reward.value,
            rollout_logprobs=logprobs,
            old_logprobs=o,
            ref_logprobs=ref,
            values=value,
            parts=reward.parts if reward.weights else {},
            part_weights=reward.weights,
        )
        for s, logprobs, reward, o, ref, value in zip(
            sequences, engine, sampled.rewards, old, refs, values, strict=True
        )
    ]
