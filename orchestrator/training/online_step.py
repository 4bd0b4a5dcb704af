"""One online step: a rollout, its rewards and updates, and a verified sync."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from algorithms.figures import Tallies, added
from orchestrator.cluster.feed import build_requests
from orchestrator.rewards.asking import SampleJudge
from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.critique_judge import CritiqueJudge, Question, with_critiques
from orchestrator.rewards.reward import Reward, RewardItem
from orchestrator.rewards.service import Unasked
from orchestrator.run.checkpoint import Progress
from orchestrator.run.cursor import PromptPick, sample_seed
from orchestrator.run.metrics import PhaseClock
from orchestrator.training.answering import Answering
from orchestrator.training.learning import check_learnable, learn, recorded, stored, synced, told_anyway
from orchestrator.training.online_metrics import Rate, Sampled
from orchestrator.training.refills import drawn
from orchestrator.training.session import Evaluation, Metrics
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
        answering = self.answering
        config = answering.session.config
        found = drawn(
            progress.cursor,
            config.rollout.prompts_per_step,
            max_refills=config.rollout.max_refills,
            named=lambda pick: named_prompt(answering.train, pick),
            sample=lambda prompts: self._sample(prompts, progress.policy_version, clock),
        )
        check_learnable(config, found)
        tokens = int(found.sampled.completions.lengths.sum())
        rate = Rate(tokens=tokens, seconds=clock.metrics()["time/rollout_s"])
        with stored(answering, progress.step + 1, found) as kept:
            found = kept.found
            learned = learn(answering, progress, found, clock)
        with told_anyway(answering, learned, kept, rate, clock):
            sync = synced(answering, learned, list(found.prompts), clock)
        return learned.done, recorded(answering, learned, kept, sync, rate)

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
            rewards = [by_id[f"{uid}/{index}"] for uid, index in completions.keys]
            said = [texts[key] for key in completions.keys]
            rewards, tallies = self.judged(rewards, [prompts[uid] for uid in completions.uids], said)
        return Sampled(
            requests=tuple(requests),
            completions=completions,
            texts=texts,
            rewards=tuple(rewards),
            tallies=tallies,
        )

    def judged(
        self, rewards: Sequence[Reward], prompts: Sequence[Prompt], said: Sequence[str]
    ) -> tuple[list[Reward], Tallies]:
        """Rewards with what others than the client add to them, and shares of their figures.

        Args:
            prompts: Of each sample.
            said: What each says.
        """
        given = list(rewards)
        if self.critiques is not None:
            weight = self.answering.session.config.reward.critique.weight
            answers = self.critiques.judge([Question(prompt, text) for prompt, text in zip(prompts, said, strict=True)])
            given = with_critiques(given, answers, weight=weight)
        shares: list[Tallies] = []
        for judge in self.judges:
            given, found = judge.added(given, prompts, said)
            shares.append(found)
        return given, added(shares)


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
