"""From items and predictions to scores: every way of counting on the same answers, as JSON and as a table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, Item
from orchestrator.evaluation.figures import Counting
from orchestrator.evaluation.predictions import Prediction
from orchestrator.evaluation.statistics import NUM_RESAMPLES, Comparison, Interval, compare, intervals
from orchestrator.run.folder import write_atomic

JSON_FILE, TABLE_FILE = "scores.json", "scores.md"
_LARGE = 10.0
_NONE = "–"


def answered(items: Iterable[Item], predictions: Iterable[Prediction]) -> tuple[list[Answered], int]:
    """Each item with what was said about it, by row and digest and never by id.

    Returns:
        The items in their order, and how many predictions are about none of them.
    """
    by_row: dict[tuple[int, str], list[Prediction]] = {}
    for one in predictions:
        by_row.setdefault((one.row, one.digest), []).append(one)
    found = [Answered(item=item, predictions=tuple(by_row.pop((item.row, item.digest), ()))) for item in items]
    return found, sum(map(len, by_row.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One model on one benchmark."""

    benchmark: str
    model: str
    countings: tuple[Counting, ...]
    """One a way, ``strict`` first."""
    intervals: Mapping[str, Mapping[str, Interval | None]]
    """By way and figure."""
    asked: Mapping[str, object] = field(default_factory=dict)
    """What makes the answers these answers, see ``Predictions``."""
    notes: tuple[str, ...] = ()
    """Of the file: rows that were left out, and why."""


def score(
    name: str,
    benchmark: Benchmark,
    answers: Sequence[Answered],
    *,
    model: str,
    options: CountOptions,
    ways: Sequence[str] | None = None,
    asked: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
    num_resamples: int = NUM_RESAMPLES,
) -> Scores:
    """Count the answers by each way.

    Args:
        ways: None is all of the benchmark's.
        options: Its own way is passed over.
    Raises:
        ValueError: a way that the benchmark does not have, an item that nothing was said about, or rows that make no
            such benchmark.
    """
    chosen, notes = benchmark.ways if ways is None else tuple(ways), list(notes)
    if unknown := [way for way in chosen if way not in benchmark.ways]:
        raise ValueError(f"{name} is not counted as {unknown[0]!r}: expected one of {', '.join(benchmark.ways)}")
    if silent := [one.item.row for one in answers if not one.predictions]:
        raise ValueError(f"nothing was said about {len(silent)} rows of {name}, row {silent[0]} is the first")
    wanted = [p for one in answers for p in one.predictions if p.sample <= (options.votes or 0)]
    others = chosen[1:] if chosen[:1] == ("strict",) else ()
    if others and any(p.status == "failed" for p in wanted):
        # Released scripts take a question without an answer for an empty one.
        notes.append(f"not counted as {', '.join(others)} while a question has no answer")
        chosen = chosen[:1]
    countings = tuple(
        benchmark.count(
            answers,
            CountOptions(way=way, reading=options.reading, votes=options.votes, seed=options.seed),
        )
        for way in chosen
    )
    return Scores(
        benchmark=name,
        model=model,
        countings=countings,
        intervals={c.way: intervals(c, seed=options.seed, num_resamples=num_resamples) for c in countings},
        asked=dict(asked or {}),
        notes=tuple(notes),
    )


def compared(
    first: Scores, second: Scores, *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> dict[str, tuple[Comparison, ...]]:
    """Both models on the same items, by each way that both were counted by.

    Raises:
        ValueError: they answered other items, see ``compare``.
    """
    theirs = {counting.way: counting for counting in second.countings}
    return {
        counting.way: compare(counting, theirs[counting.way], seed=seed, num_resamples=num_resamples)
        for counting in first.countings
        if counting.way in theirs
    }


def as_json(scores: Scores) -> str:
    """All figures with their intervals, counts and notes, by way."""
    ways = {
        counting.way: {
            "figures": {
                figure.name: {
                    "value": figure.shown,
                    "interval": scores.intervals[counting.way][figure.name],
                    "of": figure.weight,
                }
                for figure in counting.figures
            },
            "counts": dict(counting.counts),
            "notes": list(counting.notes),
        }
        for counting in scores.countings
    }
    told = {"benchmark": scores.benchmark, "model": scores.model, "asked": dict(scores.asked)}
    return json.dumps({**told, "notes": list(scores.notes), "ways": ways}, indent=1, ensure_ascii=False) + "\n"


def as_markdown(scores: Scores) -> str:
    """A table with a column for each way, so that what differs by counting alone is seen side by side."""
    ways = [counting.way for counting in scores.countings]
    lines = [f"# {_escaped(scores.benchmark)}: {_escaped(scores.model)}", "", *_head(["", *ways])]
    for name in dict.fromkeys(figure.name for counting in scores.countings for figure in counting.figures):
        cells = [_cell(scores, counting, name) for counting in scores.countings]
        lines.append(_row([_escaped(name), *cells]))
    for name in dict.fromkeys(name for counting in scores.countings for name in counting.counts):
        lines.append(_row([f"{name} (count)", *(str(c.counts.get(name, _NONE)) for c in scores.countings)]))
    lines += ["", "In brackets the middle 95 % of what the same questions give when they are drawn again.", ""]
    lines += [f"- {_escaped(note)}" for note in scores.notes]
    lines += [f"- {counting.way}: {_escaped(note)}" for counting in scores.countings for note in counting.notes]
    return "\n".join(lines).rstrip() + "\n"


def summary_markdown(model: str, found: Mapping[str, Scores | str]) -> str:
    """A table of the first figure of each benchmark.

    Args:
        found: By name; a text says why a benchmark has no scores.
    """
    lines = [f"# All benchmarks: {_escaped(model)}", "", *_head(["", "figure", "strict", "rows", "not read"])]
    for name, scores in found.items():
        if isinstance(scores, str):
            lines.append(_row([_escaped(name), f"refused: {_escaped(scores)}", _NONE, _NONE, _NONE]))
            continue
        strict = scores.countings[0]
        first, counts = strict.figures[0].name, strict.counts
        unread = next((str(counts[one]) for one in ("unreadable", "undecided") if one in counts), _NONE)
        cells = [first, _cell(scores, strict, first), str(counts.get("rows", _NONE)), unread]
        lines.append(_row([_escaped(name), *cells]))
    lines += ["", "Each folder has every figure, and every other way of counting. Not read: unreadable or undecided."]
    return "\n".join(lines) + "\n"


def comparison_markdown(found: Mapping[str, Sequence[Comparison]], *, first: str, second: str) -> str:
    """A table of differences, second less first, for each way."""
    lines = [f"# {_escaped(second)} against {_escaped(first)}", ""]
    for way, comparisons in found.items():
        lines += [f"## {way}", "", *_head(["", _escaped(first), _escaped(second), "difference", "p"])]
        for one in comparisons:
            interval = "" if one.interval is None else f" ({one.interval[0]:+.3f} to {one.interval[1]:+.3f})"
            cells = [_number(one.first), _number(one.second), f"{one.difference:+.3f}{interval}", f"{one.p_value:.4f}"]
            lines.append(_row([_escaped(one.name), *cells]))
        lines.append("")
    lines.append("Paired over questions: intervals of the bootstrap, p of random permutations, two-sided.")
    return "\n".join(lines) + "\n"


def write_scores(folder: Path, scores: Scores) -> None:
    """Write ``scores.json`` and ``scores.md``; each appears whole."""
    write_atomic(folder / JSON_FILE, as_json(scores))
    write_atomic(folder / TABLE_FILE, as_markdown(scores))


def _cell(scores: Scores, counting: Counting, name: str) -> str:
    figure = next((figure for figure in counting.figures if figure.name == name), None)
    if figure is None:
        return _NONE
    interval = scores.intervals[counting.way][name]
    spread = "" if interval is None else f" ({_number(interval[0])}-{_number(interval[1])})"
    return f"{_number(figure.shown)}{spread}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < _LARGE else f"{value:.1f}"


def _head(cells: Sequence[str]) -> list[str]:
    return [_row(cells), "|---" * len(cells) + "|"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """What a file or a person named, as text: it makes no cell, line or markup of its own."""
    marked = "".join(f"\\{c}" if c in "\\`*_{}[]#|~<>" else c for c in text)
    return " ".join(marked.split())
