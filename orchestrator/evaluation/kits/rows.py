"""A kit's rows in our tables: predictions, figures, and what a benchmark of ours makes of the same rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import RefusedInput, one_line
from orchestrator.evaluation.benchmarks.items import Answered, Item
from orchestrator.evaluation.figures import Counting, Figure
from orchestrator.evaluation.kits.kit import KitResults, KitRow
from orchestrator.evaluation.predictions import Prediction, digest_of, predictions_table, write_table

_MOST_CHARS = 80
_PLAIN = {"yes", "no"}


def counted_by_kit(results: KitResults, *, way: str) -> Counting:
    """The kit's own figures, as it reports them; it tells no interval."""
    one_task = len({figure.task for figure in results.figures}) == 1
    figures = [
        Figure("/".join([*([] if one_task else [f.task]), f.name, *([f.part] if f.part else [])]), (), printed=f.value)
        for f in results.figures
    ]
    failed = sum(row.status == "failed" for row in results.rows)
    return Counting(
        way=way,
        units=tuple(f"{row.task}/{row.part}/{row.index}/{row.sample}" for row in results.rows),
        figures=tuple(figures),
        counts={"rows": len(results.rows), "failed": failed},
        notes=results.notes,
    )


def as_predictions(rows: Iterable[KitRow]) -> list[Prediction]:
    """Without a file of ours: known by what was asked."""
    return [
        _prediction(row, row=row.index + 1, digest=digest_of(row.task, row.part, row.question, row.truth))
        for row in rows
    ]


def paired(rows: Sequence[KitRow], items: Sequence[Item]) -> list[Prediction]:
    """The kit's answers as answers to items of ours.

    A row of the kit is known by its number in its part. With one part that is the row of our file; with several, parts
    are our categories, and the number counts the rows of one.

    Raises:
        RefusedInput: they are not the same rows: another number, other words, or another truth.
    """
    parts = {row.part for row in rows}
    places: Mapping[tuple[str, int], Item]
    if len(parts) == 1:
        places = {(part, item.row - 1): item for part in parts for item in items}
    else:
        of_part = {part: [item for item in items if item.category == part] for part in parts}
        places = {(part, index): item for part, own in of_part.items() for index, item in enumerate(own)}
    found = []
    for row in rows:
        item = places.get((row.part, row.index))
        if item is None:
            raise RefusedInput(f"{_named(row)} is none of the {len(items)} rows of data that can be used")
        _refuse_another(row, item)
        found.append(_prediction(row, row=item.row, digest=item.digest))
    return found


def answered_items(predictions: Sequence[Prediction], items: Sequence[Item]) -> list[Answered]:
    """The items that the kit asked about: it may have been told to ask about some alone."""
    said: dict[tuple[int, str], list[Prediction]] = {}
    for one in predictions:
        said.setdefault((one.row, one.digest), []).append(one)
    return [
        Answered(item=item, predictions=tuple(said[item.row, item.digest]))
        for item in items
        if (item.row, item.digest) in said
    ]


def write_rows(path: Path, rows: Sequence[KitRow], predictions: Sequence[Prediction]) -> None:
    """Write our columns of predictions, and beside them what the kit tells of each; the file appears whole.

    Args:
        predictions: Of ``rows``, one each.
    """
    further = {
        "task": [row.task for row in rows],
        "part": [row.part for row in rows],
        "question": [row.question for row in rows],
        "truth": [row.truth for row in rows],
        "scores": [json.dumps(dict(row.scores), sort_keys=True) for row in rows],
    }
    write_table(path, predictions_table(predictions, further))


def _prediction(said: KitRow, *, row: int, digest: str) -> Prediction:
    return Prediction(
        row=row,
        digest=digest,
        id=said.id,
        sample=said.sample,
        status=said.status,
        text=said.text,
        finish_reason=said.finish_reason,
    )


def _refuse_another(row: KitRow, item: Item) -> None:
    asked = next((part["text"] for part in item.question if part["type"] == "text"), "").strip()
    first = asked.splitlines()[0].strip() if asked else ""
    if row.question and first not in row.question:
        shown = one_line(row.question, most=_MOST_CHARS)
        raise RefusedInput(
            f"{_named(row)} asks {shown!r}, row {item.row} of data {one_line(first, most=_MOST_CHARS)!r}: they are "
            "not the same rows"
        )
    truth = row.truth.strip().casefold()
    if truth in _PLAIN and truth not in {one.casefold() for one in item.truths}:
        raise RefusedInput(
            f"{_named(row)} has the truth {row.truth!r}, row {item.row} of data {', '.join(item.truths)!r}: they are "
            "not the same rows"
        )


def _named(row: KitRow) -> str:
    return f"the kit's row {row.index + 1} of {row.task}{f' ({row.part})' if row.part else ''}"
