"""A model is asked about every item that it has not answered yet, shard by shard.

items ──► prompts, in both orders or one ──► what is kept already is left out ──► a scorer ──► predictions ──► a shard
                                                                        a judge, where answers are rated ──┘
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Protocol

from orchestrator.data.order import stream_key
from orchestrator.errors import GuardStop
from orchestrator.evaluation.benchmarks.items import Asks, Item, Questions
from orchestrator.evaluation.benchmarks.prompts import answer_prompt, pair_prompt
from orchestrator.evaluation.predictions import Key, Prediction
from orchestrator.rewards.asking import Question, Writer, outage
from workers.types import Prompt

_SHARD_SAMPLES = 512
"""At least so many, where there are, to keep engines busy; what is said about one item stays together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions:
    """How items are asked."""

    request: str
    """Template for pairs."""
    both_orders: bool = True
    """Whether a pair is shown in both orders, or in one that the seed chooses."""
    samples: int = 0
    """Beside the greedy answer."""
    temperature: float = 1.0
    """Of samples."""
    seed: int = 0
    max_new_tokens: int = 1024


class Kept(Protocol):
    """Where answers are kept: ``Predictions`` in a folder, ``Remembered`` for as long as they are counted."""

    def __contains__(self, key: Key) -> bool:
        """Whether there is an answer."""
        ...

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Keep some more."""
        ...


@dataclass(frozen=True, slots=True)
class Remembered:
    """Answers that nobody goes on from."""

    by_key: dict[Key, Prediction] = field(default_factory=dict)

    def __contains__(self, key: Key) -> bool:
        """See ``Kept``."""
        return key in self.by_key

    def add(self, predictions: Sequence[Prediction]) -> None:
        """See ``Kept``."""
        self.by_key.update((one.key, one) for one in predictions)


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt about an item, and the samples that are wanted of it."""

    item: Item
    order: str
    prompt: Prompt
    """Of a reward model the question alone: the responses are the item's."""
    samples: tuple[int, ...]

    def prediction(self, sample: int, **said: Any) -> Prediction:
        """What a scorer says of it, named after it."""
        item = self.item
        return Prediction(row=item.row, digest=item.digest, id=item.id, sample=sample, order=self.order, **said)


def asked_of(item: Item, asks: Asks, options: AskOptions) -> list[Asked]:
    """The prompts about one item: every two of its responses, of nine at most, are compared.

    A reward model is asked once, for there is nothing to draw and no order.
    """
    samples = tuple(range(options.samples + 1))
    if asks != "verdict":
        return [Asked(item, "", answer_prompt(item), samples if asks == "answer" else (0,))]
    if not item.responses:  # the question shows both already
        return [Asked(item, "12", answer_prompt(item), samples)]
    return [
        Asked(item, order, pair_prompt(item, request=options.request, order=order), samples)
        for first, second in combinations("123456789"[: len(item.responses)], 2)
        for order in _orders(item, first + second, second + first, options)
    ]


def _orders(item: Item, listed: str, turned: str, options: AskOptions) -> tuple[str, ...]:
    both = (listed, turned)
    return both if options.both_orders else (both[stream_key("shown", options.seed, item.key) % len(both)],)


def missing(item: Item, asks: Asks, options: AskOptions, kept: Kept) -> list[Asked]:
    """The prompts about one item with those of their samples that are not kept; none where all are."""
    found = []
    for one in asked_of(item, asks, options):
        samples = tuple(s for s in one.samples if (item.row, item.digest, s, one.order) not in kept)
        if samples:
            found.append(replace(one, samples=samples))
    return found


def ask_all(
    items: Sequence[Item],
    questions: Questions,
    options: AskOptions,
    *,
    asks: Asks,
    ask: Callable[[Sequence[Asked]], list[Prediction]],
    kept: Kept,
    judge: Writer | None = None,
    on_shard: Callable[[], None] = lambda: None,
) -> None:
    """Ask for what is not kept yet, and keep it.

    Args:
        ask: A prediction for each sample of each prompt.
        judge: Rates answers, where the questions have that.
        on_shard: Called behind each shard that was kept.
    Raises:
        GuardStop: the judge answered nothing of a whole shard, and not because it will not have these questions.
    """
    for shard in _shards(missing(item, asks, options, kept) for item in items):
        said = ask(shard)
        if judge is not None and questions.judge is not None:
            said = _rated(said, {one.item.row: one.item for one in shard}, questions, judge)
        kept.add(said)
        on_shard()


def _shards(wanted: Iterable[list[Asked]]) -> Iterator[list[Asked]]:
    """
    Args:
        wanted: Of one item each.
    """
    shard = list[Asked]()
    for asked in wanted:
        shard += asked
        if sum(len(one.samples) for one in shard) >= _SHARD_SAMPLES:
            yield shard
            shard = []
    if shard:
        yield shard


def _rated(said: Sequence[Prediction], items: dict[int, Item], about: Questions, judge: Writer) -> list[Prediction]:
    """Answers with what the judge says of them; of some answers there is nothing to ask."""
    assert about.judge is not None
    words = [about.judge(items[one.row], one.text) if one.status == "answered" else "" for one in said]
    questions = [Question(f"{p.row}-{p.sample}", (), text) for p, text in zip(said, words, strict=True) if text]
    answers = iter(judge.write(questions)) if questions else iter(())
    found = [next(answers) if text else None for text in words]
    if (fault := outage([one for one in found if one is not None])) is not None:
        raise GuardStop(f"the judge answered none of {len(questions)} questions: {fault}")
    return [
        replace(one, reply=answer.text, status="answered" if answer.text is not None else "failed")
        if answer is not None
        else one
        for one, answer in zip(said, found, strict=True)
    ]
