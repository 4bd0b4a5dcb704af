"""What two models disagree on, as one HTML page: pictures, question, truth, what each said and how it came to that.

For each way of counting the rows that one model alone has right, or one has righter, those that differ most first.
A row is shown in full once; ways behind the first name the ones that are shown already. Invariant: the page loads
nothing, runs nothing, and whatever a file or a model says is text in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.evaluation.benchmarks.items import Item
from orchestrator.evaluation.disagreement_rows import Compared, Difference, anchor, article, row_name
from orchestrator.evaluation.figures import Counting, Worth, worths
from orchestrator.evaluation.predictions import FILE, Prediction, read_predictions
from orchestrator.evaluation.results import Scores, answered
from orchestrator.reporting.markup import Html, document, element, join
from orchestrator.run.folder import write_atomic

PAGE_FILE = "disagreements.html"
MOST_SHOWN = 20
"""Rows in full, for each way and each model that they speak for."""
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Differences:
    """Of two models, by one way of counting."""

    rows: tuple[Difference, ...]
    """The largest first."""
    num_apart: int
    """Rows that this way counts for one of the models alone."""


def differences(first: Counting, second: Counting, items: Sequence[Item]) -> Differences:
    """The rows on which two models differ, by the first figure that is taken of each."""
    found, apart = list[Difference](), 0
    pairs = zip(_of_items(first, items), _of_items(second, items), strict=True)
    for index, (one, other) in enumerate(pairs):
        if one is None or other is None or one.figure != other.figure:
            apart += (one, other) != (None, None)
        elif abs(one.value - other.value) > _TOLERANCE:
            found.append(Difference(index=index, first=one, second=other))
    found.sort(key=lambda d: (-abs(d.first.value - d.second.value), items[d.index].row))
    return Differences(tuple(found), apart)


def _of_items(counting: Counting, items: Sequence[Item]) -> list[Worth | None]:
    """By rows where each item is one; else by units, which bear the items' names."""
    if len(counting.of_rows) == len(items):
        return list(counting.of_rows)
    of_units = dict(zip(counting.units, worths(counting.figures, len(counting.units)), strict=True))
    return [of_units.get(item.key) for item in items]


def write_disagreements(
    folder: Path,
    items: Sequence[Item],
    scores: tuple[Scores, Scores],
    said: tuple[Path, Sequence[Prediction]],
    *,
    readings: tuple[str, str],
    votes: int | None,
) -> Path:
    """Write ``disagreements.html`` into ``folder``, and return its path.

    Args:
        scores: Of the first and the second model, on these items.
        said: The folder of the first model's answers, and the second's answers.
        readings: Of the first and the second model, see ``CountOptions``.
        votes: see ``CountOptions``.
    Raises:
        RefusedInput: the first model's answers cannot be read.
    """
    both = read_predictions(said[0] / FILE), said[1]
    path = folder / PAGE_FILE
    page = disagreement_page(items, scores, both, readings=readings, votes=votes)
    # Half a character, which JSON may hold, is in no UTF-8 file.
    write_atomic(path, page.encode(errors="replace"))
    return path


def disagreement_page(
    items: Sequence[Item],
    scores: tuple[Scores, Scores],
    said: tuple[Sequence[Prediction], Sequence[Prediction]],
    *,
    readings: tuple[str, str],
    votes: int | None,
    most_shown: int = MOST_SHOWN,
) -> str:
    """The page as one document; see ``write_disagreements``.

    Args:
        most_shown: Rows in full, for each way and each model that they speak for.
    """
    first, second = scores
    of_items = [[one.predictions for one in answered(items, own)[0]] for own in said]
    compared = Compared(
        items=items,
        said=(of_items[0], of_items[1]),
        names=(first.model, second.model),
        readings=readings,
        votes=votes,
    )
    others = {counting.way: counting for counting in second.countings}
    shown = set[int]()
    body = [
        _section(compared, counting.way, differences(counting, others[counting.way], items), shown, most_shown)
        for counting in first.countings
        if counting.way in others
    ]
    title = f"{second.benchmark}: where {second.model} and {first.model} disagree"
    return document(title, element("h1", None, title), element("p", {"class": "note"}, _HOW), *body)


_HOW = (
    "A row is here where it counts for something else with one model than with the other: in most figures 1 is right "
    "and 0 is wrong, and of a pair it is the share of its orders that are judged right. A figure of several rows, such "
    "as all rotations of a question, stands at the first of them."
)


def _section(compared: Compared, way: str, found: Differences, shown: set[int], most_shown: int) -> Html:
    parts: list[Html] = [element("h2", None, way)]
    if not found.rows:
        parts.append(element("p", None, "They agree on every row."))
    for better in (1, 0):
        own = [one for one in found.rows if one.better == better]
        if own:
            parts += _direction(compared, own, better, shown, most_shown)
    if found.num_apart:
        told = (
            f"{found.num_apart} rows are counted for one of the models alone: this way leaves out what it cannot read."
        )
        parts.append(element("p", {"class": "note"}, told))
    return join(parts)


def _direction(
    compared: Compared, own: Sequence[Difference], better: int, shown: set[int], most_shown: int
) -> Iterator[Html]:
    """The rows that speak for one model: in full, or by number where they stand above or are too many."""
    new = [one for one in own if one.index not in shown]
    before, full, rest = [one for one in own if one.index in shown], new[:most_shown], new[most_shown:]
    yield element("h3", None, f"{len(own)} of {len(compared.items)} rows speak for {compared.names[better]}")
    if before:
        links = [element("a", {"href": f"#{anchor(compared, one)}"}, row_name(compared, one)) for one in before]
        told = [part for link in links[:most_shown] for part in (link, " ")]
        more = [f"and {len(links) - most_shown} more"] if len(links) > most_shown else []
        yield element("p", {"class": "note"}, "Shown above: ", *told, *more)
    if full:
        yield element("div", {"class": "samples"}, *(article(compared, one) for one in full))
    if rest:
        yield element("p", {"class": "note"}, f"{len(rest)} more are not shown.")
    shown |= {one.index for one in full}
