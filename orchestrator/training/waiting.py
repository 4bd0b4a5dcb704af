"""Answers that wait to be learned from, as everybody else takes them: requests, sequences, texts, a step's batch."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.feed import completion_sequences, with_their_prompts
from orchestrator.rewards.check import compares_samples
from orchestrator.rewards.reward import Reward, RewardItem
from orchestrator.run.ahead import AheadGroup, AheadSample
from orchestrator.run.cursor import sample_seed
from orchestrator.training.online_metrics import Sampled
from orchestrator.training.online_step import OnlineWork, reward_item
from workers.types import Completion, Completions, EncodedPrompt, GenerationRequest, Prompt


def longer_by(sample: AheadSample, piece: Completion, *, longest: int) -> AheadSample:
    """A sample with what was sampled behind it; whole where it stopped by itself, or has ``longest`` tokens."""
    tokens, (*before, last) = len(piece.completion_ids), sample.spans or ((0, piece.policy_version),)
    spans = (*before, last, (tokens, piece.policy_version))
    if last[1] == piece.policy_version:
        spans = (*before, (last[0] + tokens, piece.policy_version))
    goes_on = piece.finish_reason == "length" and len(sample.ids) + tokens < longest
    return replace(
        sample,
        ids=np.concatenate([sample.ids, piece.completion_ids]),
        logprobs=np.concatenate([sample.logprobs, piece.rollout_logprobs]),
        spans=spans,
        finish_reason=None if goes_on else piece.finish_reason,
        engine=piece.engine,
    )


def stored_reward(reward: Reward) -> str | None:
    """JSON; None of one that failed or is unknown for now: a run that goes on asks again, as one in turn does."""
    return json.dumps(asdict(reward)) if reward.is_settled else None


def completion_of(group: AheadGroup, index: int) -> Completion:
    """A whole sample as if one engine had sampled it at once."""
    sample = group.samples[index]
    assert sample.finish_reason is not None, f"{group.uid}/{index} is not whole"
    return Completion(
        uid=group.uid,
        sample_index=index,
        completion_ids=sample.ids,
        rollout_logprobs=sample.logprobs,
        finish_reason=sample.finish_reason,
        policy_version=sample.spans[-1][1],
        engine=sample.engine,
    )


class Waiting:
    """What is made of them once, and kept as long as they wait."""

    def __init__(self, work: OnlineWork) -> None:
        self.work, self.config = work, work.answering.session.config
        self._encoded: dict[str, EncodedPrompt] = {}
        self._texts: dict[tuple[str, int], str] = {}
        self._judged: tuple[tuple[str, ...], Sampled] | None = None

    def prompt(self, group: AheadGroup) -> Prompt:
        """What it answers, under its name."""
        return replace(self.work.answering.train[group.index], uid=group.uid)

    def text(self, group: AheadGroup, index: int) -> str:
        """What a whole sample says."""
        key = group.uid, index
        if key not in self._texts:
            self._texts[key] = self.work.answering.encoder.decode(group.samples[index].ids)
        return self._texts[key]

    def item(self, group: AheadGroup, index: int) -> RewardItem:
        """What whoever rewards a whole sample is told."""
        is_here = self.config.reward.url is None
        return reward_item(self.prompt(group), completion_of(group, index), self.text(group, index), is_here=is_here)

    def sequences(self, group: AheadGroup) -> list[TokenSequence]:
        """What a model reads of whole samples."""
        rows = range(len(group.samples))
        asked, said = [self.first_request(group, i) for i in rows], [completion_of(group, i) for i in rows]
        return completion_sequences(asked, Completions.of(said))

    def request(self, group: AheadGroup, index: int, *, version: int) -> GenerationRequest:
        """What asks weights of this version to go on with a sample."""
        rollout, ids = self.config.rollout, tuple(group.samples[index].ids.tolist())
        if group.uid not in self._encoded:
            self._encoded[group.uid] = self.work.answering.encoder.encode(self.prompt(group))
        prompt, left = self._encoded[group.uid], rollout.max_new_tokens - len(ids)
        return GenerationRequest(
            uid=group.uid,
            sample_index=index,
            engine_prompt_ids=prompt.engine_prompt_ids + ids,
            prompt_ids=prompt.prompt_ids + ids,
            media=prompt.media,
            seed=sample_seed(self.config.run.seed, group.uid, index, version, len(ids)),
            max_new_tokens=min(left, rollout.tokens_per_round or left),
            temperature=rollout.temperature,
        )

    def first_request(self, group: AheadGroup, index: int) -> GenerationRequest:
        """What a sample began with."""
        fresh = replace(group, samples=(AheadSample(),) * len(group.samples))
        return self.request(fresh, index, version=group.samples[index].spans[0][1])

    def batch(self, groups: Sequence[AheadGroup]) -> Sampled:
        """Whole groups as a step learns from them, judged; asked again about the same, it has them still."""
        uids = tuple(group.uid for group in groups)
        if self._judged is None or self._judged[0] != uids:
            self._judged = uids, self._batch(groups)
        return self._judged[1]

    def forget(self, groups: Sequence[AheadGroup]) -> None:
        """They are learned from."""
        self._judged = None
        for group in groups:
            self._encoded.pop(group.uid, None)
            for index in range(len(group.samples)):
                self._texts.pop((group.uid, index), None)

    def _batch(self, groups: Sequence[AheadGroup]) -> Sampled:
        rows = [(group, index, sample) for group in groups for index, sample in enumerate(group.samples)]
        said = [self.text(group, index) for group, index, _ in rows]
        rewards, tallies = self.work.judged(self._given(groups), [self.prompt(group) for group, _, _ in rows], said)
        refs = tuple(sample.ref_logprobs for _, _, sample in rows if sample.ref_logprobs is not None)
        requests = tuple(self.first_request(group, index) for group, index, _ in rows)
        completions = Completions.of(completion_of(group, index) for group, index, _ in rows)
        return Sampled(
            requests=requests,
            completions=with_their_prompts(requests, completions),
            rewards=tuple(rewards),
            texts={(group.uid, index): text for (group, index, _), text in zip(rows, said, strict=True)},
            tallies=tallies,
            ref_logprobs=refs if len(refs) == len(rows) else (),
            spans=tuple(sample.spans for _, _, sample in rows),
        )

    def _given(self, groups: Sequence[AheadGroup]) -> list[Reward]:
        """What each sample earns, row by row; those without are asked about, where samples are compared as a prompt."""
        found, together, items = dict[str, Reward](), compares_samples(self.config), list[RewardItem]()
        for group in groups:
            without = [index for index, sample in enumerate(group.samples) if sample.reward is None]
            items += [self.item(group, i) for i in (range(len(group.samples)) if without and together else without)]
        if items:
            stream = self.work.client.open_stream()
            for item in items:
                stream.add(item)
            found.update(stream.results())
        rows = [(f"{group.uid}/{index}", sample) for group in groups for index, sample in enumerate(group.samples)]
        return [found.get(name) or Reward(**json.loads(sample.reward or "")) for name, sample in rows]
