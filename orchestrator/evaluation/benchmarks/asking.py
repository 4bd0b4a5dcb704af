"""A model is asked about every item that it has not answered yet, shard by shard.

    items ──► prompts, in both orders or one ──► what is kept already is left out ──► engines ──► texts ──► a shard
                                                                            a judge, where answers are rated ──┘

Every sample has a seed of its own, made of the run's seed and the item's row, order and number: a run that was cut asks
for the rest, and gets what it would have got.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import numpy as np

from orchestrator.data.order import stream_key
from orchestrator.errors import GuardStop
from orchestrator.evaluation.benchmarks.items import Benchmark, Item
from orchestrator.evaluation.benchmarks.prompts import ORDERS, answer_prompt, pair_prompt
from orchestrator.evaluation.predictions import Prediction, Predictions
from orchestrator.rewards.asking import Question, Writer
from orchestrator.run.cursor import sample_seed
from workers.types import Completion, EncodedPrompt, GenerationRequest, Prompt, UnusablePrompt

_SHARD_ITEMS = 128
Sampler = Callable[[Sequence[GenerationRequest]], list[Completion]]


class Encoder(Protocol):
    """Prompts in token ids, and back."""

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """See ``PromptEncoder``."""
        ...

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """See ``PromptEncoder``."""
        ...


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


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt about an item, and the samples that are wanted of it."""

    item: Item
    order: str
    prompt: Prompt
    samples: tuple[int, ...]


def asked_of(item: Item, benchmark: Benchmark, options: AskOptions) -> list[Asked]:
    """The prompts about one item."""
    samples = tuple(range(options.samples + 1))
    if benchmark.asks == "answer":
        return [Asked(item, "", answer_prompt(item), samples)]
    orders = ORDERS
    if not options.both_orders:
        orders = (ORDERS[stream_key("shown", options.seed, item.key) % len(ORDERS)],)
    return [Asked(item, one, pair_prompt(item, request=options.request, order=one), samples) for one in orders]


@dataclass(frozen=True, slots=True)
class Lengths:
    """What the prompts of some items ask of an engine."""

    longest: int
    """Tokens of the longest prompt, as a model's forward sees it."""
    max_images: int
    unusable: tuple[tuple[int, str], ...]
    """Rows that cannot be asked, with the reason."""


def lengths(
    items: Sequence[Item], benchmark: Benchmark, options: AskOptions, encoder: Encoder, *, most: int | None
) -> Lengths:
    """Encode every prompt once, and keep none.

    Args:
        most: Tokens that prompt and answer may have together.
    """
    longest, images, unusable = 0, 0, list[tuple[int, str]]()
    for item in items:
        try:
            encoded = [encoder.encode(one.prompt) for one in asked_of(item, benchmark, options)]
        except UnusablePrompt as error:
            unusable.append((item.row, error.reason))
            continue
        tokens = max(len(one.prompt_ids) for one in encoded)
        if most is not None and tokens + options.max_new_tokens > most:
            unusable.append(
                (item.row, f"{tokens} tokens and an answer of {options.max_new_tokens} are more than {most}")
            )
            continue
        longest, images = max(longest, tokens), max(images, *(len(one.media) for one in encoded))
    return Lengths(longest, images, tuple(unusable))


def ask_all(
    items: Sequence[Item],
    benchmark: Benchmark,
    options: AskOptions,
    *,
    encoder: Encoder,
    sample: Sampler,
    kept: Predictions,
    judge: Writer | None = None,
    on_shard: Callable[[], None] = lambda: None,
) -> None:
    """Ask for what is not kept yet, and keep it.

    Args:
        judge: Rates answers, where the benchmark has that.
        on_shard: Called behind each shard that was kept.
    Raises:
        GuardStop: the judge answered nothing of a whole shard.
        UnusablePrompt: an item that ``lengths`` names.
    """
    waiting = (item for item in items if _missing(item, benchmark, options, kept))
    while shard := list(islice(waiting, _SHARD_ITEMS)):
        asked = [one for item in shard for one in _missing(item, benchmark, options, kept)]
        requests = [request for one in asked for request in _requests(one, options, encoder)]
        by_uid = {one.prompt.uid: one for one in asked}
        said = [_prediction(by_uid[c.uid], c, encoder) for c in sample(requests)]
        if judge is not None and benchmark.judge is not None:
            said = _rated(said, {item.row: item for item in shard}, benchmark, judge)
        kept.add(said)
        on_shard()


def _missing(item: Item, benchmark: Benchmark, options: AskOptions, kept: Predictions) -> list[Asked]:
    found = []
    for one in asked_of(item, benchmark, options):
        samples = tuple(s for s in one.samples if (item.row, item.digest, s, one.order) not in kept)
        if samples:
            found.append(Asked(item, one.order, one.prompt, samples))
    return found


def _requests(asked: Asked, options: AskOptions, encoder: Encoder) -> Iterator[GenerationRequest]:
    encoded = encoder.encode(asked.prompt)
    for number in asked.samples:
        yield GenerationRequest(
            uid=encoded.uid,
            sample_index=number,
            engine_prompt_ids=encoded.engine_prompt_ids,
            prompt_ids=encoded.prompt_ids,
            media=encoded.media,
            seed=sample_seed(options.seed, encoded.uid, number, 0),
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature if number else 0.0,
        )


def _prediction(asked: Asked, completion: Completion, encoder: Encoder) -> Prediction:
    return Prediction(
        row=asked.item.row,
        digest=asked.item.digest,
        id=asked.item.id,
        sample=completion.sample_index,
        order=asked.order,
        text=encoder.decode(completion.completion_ids),
        finish_reason=completion.finish_reason,
    )


def _rated(said: Sequence[Prediction], items: dict[int, Item], benchmark: Benchmark, judge: Writer) -> list[Prediction]:
    """Answers with what the judge says of them; of some answers there is nothing to ask."""
    assert benchmark.judge is not None
    words = [benchmark.judge(items[one.row], one.text) for one in said]
    questions = [Question(f"{p.row}-{p.sample}", (), text) for p, text in zip(said, words, strict=True) if text]
    answers = iter(judge.write(questions)) if questions else iter(())
    found = [next(answers) if text else None for text in words]
    faults = [one.fault for one in found if one is not None and one.text is None]
    if questions and len(faults) == len(questions):
        raise GuardStop(f"the judge answered none of {len(questions)} questions: {faults[0]}")
    return [
        replace(one, reply=answer.text, status="answered" if answer.text is not None else "failed")
        if answer is not None
        else one
        for one, answer in zip(said, found, strict=True)
    ]
