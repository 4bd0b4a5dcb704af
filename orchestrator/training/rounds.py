"""Sampling for later steps, in rounds: what is asked, what came of it, and when there is enough for the next batch.

    fill     prompts by the cursor, up to so many that wait
    round    every answer that is not whole goes on, with what it has as its prompt, for at most tokens_per_round
    whole    its rewards are asked for and, by portions, the reference's log-probs, while others go on
    enough   the next batch is there, and all that wait can still be learned from in time

Nothing of it depends on a clock: which answers are in which batch follows from seeds and lengths alone.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

from orchestrator.cluster.engines import NoEngineLeft
from orchestrator.run.ahead import AheadGroup, AheadSample
from orchestrator.run.checkpoint import Progress
from orchestrator.run.cursor import PromptCursor, PromptPick
from orchestrator.training.online_metrics import Rate
from orchestrator.training.online_step import named_prompt
from orchestrator.training.staleness import Taken, next_batch
from orchestrator.training.waiting import Waiting, longer_by, stored_reward
from workers.types import Completion, Completions, GenerationRequest

_PORTIONS = 8
"""In which the reference is asked about a step's answers."""


class Draw(Protocol):
    """Engines, as far as a round needs them."""

    def __call__(self, requests: Sequence[GenerationRequest], *, on_finished: Callable[[Completions], None]) -> object:
        """Draw every request; see ``Engines``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What came of sampling under one version of the weights."""

    groups: tuple[AheadGroup, ...]
    """All that wait, in the order of issue."""
    cursor: PromptCursor
    """Behind them."""
    rate: Rate
    seen: tuple[str, ...]
    """Names of the prompts that engines were asked in it."""
    num_late: int = 0
    """Answers that no engine was left for."""


def sample_ahead(
    waiting: Waiting, progress: Progress, *, most: int, due: int, draw: Draw, beside: Collection[str] = ()
) -> Stretch:
    """Go round until the batch of step ``due`` is there; once at least, where there is something to ask.

    Args:
        progress: Where the weights in use stand, and what waits.
        most: Prompts that may wait.
        due: Steps finished by the weights that will learn from that batch.
        beside: Names of what is learned from meanwhile, of the same weights: under one of them the same would be drawn.
    """
    rollout, began, num_late = waiting.config.rollout, time.monotonic(), 0

    def batch(groups: Sequence[AheadGroup]) -> Taken | None:
        return next_batch(groups, count=rollout.prompts_per_step, step=due, staleness=rollout.staleness)

    groups, cursor = _filled(waiting, progress, most, beside)
    rounds = _Rounds(waiting, groups, progress)
    try:
        while rounds.go(draw) and batch(rounds.groups) is None:
            pass
    except NoEngineLeft:
        num_late = len(rounds.opened())
    rate = Rate(tokens=rounds.num_tokens, seconds=time.monotonic() - began)
    found = rounds.ended()
    taken = batch(found)
    # Whoever could not answer just now is asked again when the step takes them.
    if taken is not None and all(sample.reward is not None for group in taken[0] for sample in group.samples):
        waiting.batch(taken[0])
    return Stretch(groups=found, cursor=cursor, rate=rate, seen=tuple(rounds.seen), num_late=num_late)


def _filled(
    waiting: Waiting, progress: Progress, most: int, beside: Collection[str]
) -> tuple[list[AheadGroup], PromptCursor]:
    """What waits and the next prompts; one that is there already gets a name of its own."""
    groups, cursor = list(progress.ahead), progress.cursor
    picks, cursor = cursor.take(most - len(groups)) if most > len(groups) else ([], cursor)
    names, train = {group.uid for group in groups}.union(beside), waiting.work.answering.train
    for pick in picks:
        repeat = 0
        while (uid := named_prompt(train, PromptPick(pick.index, repeat)).uid) in names:
            repeat += 1
        names.add(uid)
        fresh = (AheadSample(),) * waiting.config.rollout.samples_per_prompt
        groups.append(AheadGroup(uid=uid, index=pick.index, begun=progress.step, samples=fresh))
    return groups, cursor


class _Rounds:
    """Rounds under one version of the weights; where engines are lost, what came back before stays."""

    def __init__(self, waiting: Waiting, groups: Sequence[AheadGroup], progress: Progress) -> None:
        self._waiting, self._version = waiting, progress.policy_version
        # What no token was sampled for when it was issued begins now.
        begun = [g if any(len(s.ids) for s in g.samples) else replace(g, begun=progress.step) for g in groups]
        self._by_uid = {group.uid: group for group in begun}
        self._stream = waiting.work.client.open_stream()
        self._whole: list[str] = []
        self._asked: dict[str, Callable[[], dict[str, list[Any]]]] = {}
        self.num_tokens = 0
        self.seen: dict[str, None] = {}

    @property
    def groups(self) -> list[AheadGroup]:
        """As they are by now, in the order of issue."""
        return list(self._by_uid.values())

    def opened(self) -> list[tuple[str, int]]:
        """Samples that are not whole."""
        pairs = [(group, index) for group in self._by_uid.values() for index in range(len(group.samples))]
        return [(group.uid, index) for group, index in pairs if group.samples[index].finish_reason is None]

    def go(self, draw: Draw) -> bool:
        """One round; False where everything is whole."""
        opened = self.opened()
        if not opened:
            return False
        size = -(-self._waiting.config.rollout.prompts_per_step // _PORTIONS)
        portions = {uid: number // size for number, uid in enumerate(dict.fromkeys(uid for uid, _ in opened))}
        missing = Counter(portions[uid] for uid, _ in opened)

        def finished(arrived: Completions) -> None:
            for piece in arrived:
                self._landed(piece)
                missing[portions[piece.uid]] -= 1
                if not missing[portions[piece.uid]]:
                    self._refer([uid for uid, portion in portions.items() if portion == portions[piece.uid]])

        requests = [self._waiting.request(self._by_uid[uid], i, version=self._version) for uid, i in opened]
        self.seen |= dict.fromkeys(request.uid for request in requests)
        draw(requests, on_finished=finished)
        return True

    def ended(self) -> tuple[AheadGroup, ...]:
        """The groups, those that have become whole with the rewards that are settled and the reference's log-probs."""
        self._refer(self._whole)
        rewards = self._stream.results()
        for uid in self._whole:
            group, refs = self._by_uid[uid], self._asked[uid]().get(uid) if uid in self._asked else None
            samples = [
                replace(
                    sample,
                    reward=stored_reward(rewards[f"{uid}/{index}"]),
                    ref_logprobs=None if refs is None else refs[index],
                )
                for index, sample in enumerate(group.samples)
            ]
            self._by_uid[uid] = replace(group, samples=tuple(samples))
        return tuple(self._by_uid.values())

    def _landed(self, piece: Completion) -> None:
        """An answer goes on; its prompt's rewards are asked for once all of its answers are whole."""
        found = piece.policy_version
        assert found == self._version, f"engine {piece.engine} has weights {found}, not {self._version}"
        group, at = self._by_uid[piece.uid], piece.sample_index
        longer = longer_by(group.samples[at], piece, longest=self._waiting.config.rollout.max_new_tokens)
        group = replace(group, samples=(*group.samples[:at], longer, *group.samples[at + 1 :]))
        self._by_uid[piece.uid] = group
        self.num_tokens += len(piece.completion_ids)
        if group.is_whole:
            self._whole.append(group.uid)
            for index in range(len(group.samples)):
                self._stream.add(self._waiting.item(group, index))

    def _refer(self, uids: Sequence[str]) -> None:
        """Ask the reference about those that are whole, and about each once."""
        answering = self._waiting.work.answering
        reference = answering.session.pool.role("reference")
        wanted = set(uids).difference(self._asked)
        groups = [group for uid, group in self._by_uid.items() if uid in wanted and group.is_whole]
        if not groups or not reference.actors:
            return
        sequences = [sequence for group in groups for sequence in self._waiting.sequences(group)]
        deadline_s, sampling = answering.session.deadline_s, answering.sampling
        answers = reference.begin_each("score", sequences, deadline_s=deadline_s, sampling=sampling)

        def by_uid() -> dict[str, list[Any]]:
            rows = iter(row[s.prompt_len :].copy() for s, row in zip(sequences, answers(), strict=True))
            return {group.uid: [next(rows) for _ in group.samples] for group in groups}

        once = cache(by_uid)
        self._asked |= {group.uid: once for group in groups}
