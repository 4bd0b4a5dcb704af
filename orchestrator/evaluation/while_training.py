"""Benchmarks that a run is measured on while it trains: asked of the engines that hold the policy, counted strictly.

[[eval.benchmark]] ──► rows, drawn once ──► at every evaluation: questions, shard by shard ──► engines ──► figures

Only the rows' texts and the names of their media stay in memory; a shard's prompts are encoded when it is asked. Every
answer is greedy, so that the same weights have the same figures.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from algorithms.figures import Figure
from orchestrator.config.benchmarks import EvalBenchmark
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.asking import Asked, AskOptions, Remembered, ask_all, asked_of
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, Item
from orchestrator.evaluation.benchmarks.prompts import request_of
from orchestrator.evaluation.benchmarks.registry import benchmark_of
from orchestrator.evaluation.benchmarks.usable import drawn_items, usable_items
from orchestrator.evaluation.figures import Counting
from orchestrator.evaluation.predictions import Prediction, digest_of
from orchestrator.evaluation.results import answered
from orchestrator.evaluation.scorers.engines import Decoder, Encoder, Lengths, lengths, predictions, requests
from workers.types import Completion, GenerationRequest

_NO_NAME = re.compile(r"[^a-z0-9_]+")
_DRAWN = ("first_position", "unreadable")
"""Figures that the report draws beside the first one."""


class Writes(Encoder, Decoder, Protocol):
    """Prompts in token ids, and back."""


Sampler = Callable[[Sequence[GenerationRequest]], Sequence[Completion]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBenchmark:
    """One benchmark of a run."""

    name: str
    benchmark: Benchmark
    items: tuple[Item, ...]
    num_rows: int
    """Usable rows of the file, of which ``items`` are some."""
    options: AskOptions
    counting: CountOptions
    needs: Lengths
    """Of an engine."""
    told: tuple[str, ...] = ()
    """Of the file, for people."""

    def figures(self, sample: Sampler, encoder: Writes) -> dict[str, float]:
        """What the policy that the engines hold comes to; a share of nothing is left out."""
        said = Remembered()

        def ask(asked: Sequence[Asked]) -> list[Prediction]:
            return predictions(asked, sample(requests(asked, self.options, encoder)), encoder)

        ask_all(self.items, self.benchmark, self.options, asks=self.benchmark.asks, ask=ask, kept=said)
        found, _ = answered(self.items, said.by_key.values())
        return self._named(self.benchmark.count(found, self.counting), whole=False)

    def declared(self) -> list[Figure]:
        """Every figure of an evaluation, from answers that say nothing.

        Raises:
            RefusedInput: rows that make no such benchmark, or two figures that would have one name.
        """
        silent = [
            Answered(item=item, predictions=tuple(one.prediction(0) for one in self._questions(item)))
            for item in self.items
        ]
        try:
            names = list(self._named(self.benchmark.count(silent, self.counting), whole=True))
        except ValueError as error:
            raise RefusedInput(f"eval.benchmark {self.name!r}: {error}") from error
        shown = {names[0], *(self._full(name) for name in _DRAWN)}
        return [
            Figure(name, meaning_of(self.name), f"Benchmark {self.name}" if name in shown else "") for name in names
        ]

    def lines(self) -> Iterator[str]:
        """What an evaluation asks, for people."""
        asked = sum(len(self._questions(item)) for item in self.items)
        rows = f"{len(self.items)} of {self.num_rows} rows"
        for line in (f"{rows}, {asked} questions at every evaluation", *self.told):
            yield f"benchmark {self.name}: {line}"

    def _questions(self, item: Item) -> list[Asked]:
        return asked_of(item, self.benchmark.asks, self.options)

    def _named(self, counting: Counting, *, whole: bool) -> dict[str, float]:
        counted = [one for one in counting.figures if whole or any(term.whole.any() for term in one.terms)]
        found = {figure.name: figure.shown for figure in counted}
        if "unreadable" not in found and counting.counts.get("rows"):
            found["unreadable"] = counting.counts.get("unreadable", 0) / counting.counts["rows"]
        named = {self._full(name): value for name, value in found.items()}
        if len(named) < len(found):
            raise ValueError(f"two of its figures have one name, of {', '.join(found)}")
        return named

    def _full(self, name: str) -> str:
        """As rows of metrics have it; categories are called as people like."""
        parts = ((_NO_NAME.sub("_", part.lower()).strip("_"), part) for part in name.split("/"))
        # A name in another script leaves nothing, and still has to be one of its own.
        return "/".join(("eval", self.name, *(told or f"x{digest_of(part)[:8]}" for told, part in parts)))


def meaning_of(name: str) -> str:
    """What is said of the figures of a benchmark."""
    return (
        f"of the benchmark `{name}` as `strict` counts it, greedy answers to the rows of its `[[eval.benchmark]]`: "
        "`accuracy` and others as `orchestrator.evaluate` names them, `unreadable` the share without a clear answer"
    )


def read_benchmarks(config: TrainConfig, encoder: Encoder, *, most: int | None, pictures: Path) -> list[RunBenchmark]:
    """Those of a run, every prompt encoded once and none kept.

    Args:
        most: Tokens that a prompt and an answer may have together; None is without end.
        pictures: Folder for pictures that stand in the rows and for frames of videos.
    Raises:
        RefusedInput: a file that cannot be used, rows that the policy cannot be asked, or an ``eval.best`` that is none
            of the figures.
    """
    found = [_read(config, table, encoder, most=most, pictures=pictures) for table in config.eval.benchmark]
    names = [figure.name for one in found for figure in one.declared()]
    best = config.eval.best or ""
    mine = [one.name for one in found if best.startswith(f"eval/{one.name}/")]
    if mine and best not in names:
        known = ", ".join(name for name in names if name.startswith(f"eval/{mine[0]}/"))
        raise RefusedInput(f"eval.best = {best!r} is no figure of benchmark {mine[0]}: {known}")
    return found


def declared_figures(benchmarks: Sequence[RunBenchmark]) -> list[Figure]:
    """Of all benchmarks of a run."""
    return [figure for one in benchmarks for figure in one.declared()]


def change_lines(
    benchmarks: Sequence[RunBenchmark], before: Mapping[str, float], after: Mapping[str, float]
) -> Iterator[str]:
    """The first figure of each benchmark before and after, for people."""
    for one in benchmarks:
        first = one.declared()[0].name
        if first in before and first in after:
            told = first.removeprefix("eval/").replace("/", " ")
            yield f"Benchmark {told}: {before[first]:.3f} before, {after[first]:.3f} after, on {len(one.items)} rows"


def _read(
    config: TrainConfig, table: EvalBenchmark, encoder: Encoder, *, most: int | None, pictures: Path
) -> RunBenchmark:
    benchmark, seed = benchmark_of(table.name), config.run.seed
    told: list[str] = []
    _, usable = usable_items(
        table.path, table.media_root, benchmark=benchmark, data=config.data, pictures=pictures, tell=told.append
    )
    items = drawn_items(usable.items, table.rows, seed=seed, name=table.name)
    options = AskOptions(
        request=request_of(table.form, table.template),
        both_orders=table.order == "both",
        seed=seed,
        max_new_tokens=config.rollout.max_new_tokens,
    )
    needs = lengths(items, options, encoder, asks=benchmark.asks, most=most)
    if needs.unusable:
        (row, reason), count = needs.unusable[0], len(needs.unusable)
        raise RefusedInput(f"{count} rows of {table.path!r} cannot be asked; row {row}: {reason}")
    return RunBenchmark(
        name=table.name,
        benchmark=benchmark,
        items=items,
        num_rows=len(usable.items),
        options=options,
        counting=CountOptions(reading=table.form, seed=seed),
        needs=needs,
        told=tuple(told),
    )
