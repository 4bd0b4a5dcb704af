"""``mm_rlhf_pairs``: ``dpo_pairs.jsonl`` of MM-RLHF, one comparison a row, and what we export for swift.

All rows with the same ``id``, wherever they stand, are one instruction. Its responses are their different texts, in
order of first appearance; the reasons given for a response are its critique. One is preferred to another where a row
says so or where it follows from rows, see ``order_from_pairs``. If that compares or ties any two responses they have
ranks; if not, each has those that it is preferred to. ``meta`` has ``ls_factor`` as a list of
``[chosen, rejected, factor]``, by index of the responses, and ``num_pairs_added``, the pairs that follow and are in no
row, where there are any.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from orchestrator.data.pairs import Order, PreferenceCycle, order_from_pairs, pairs_by_score
from orchestrator.data.readers.comparisons import Comparison, Side, read_comparison
from orchestrator.data.readers.draft import Draft
from orchestrator.data.records import Response
from orchestrator.data.rows import JsonRow, RowError, shown

_Pair = tuple[int, int]
_T = TypeVar("_T")


def read_mm_rlhf_pairs(rows: Sequence[JsonRow]) -> Draft:
    """Check the rows of one instruction.

    Args:
        rows: At least one, in file order, all with the same ``id``.

    Raises:
        RowError: naming field and value, and the row where it is not the first; or the cycle of the preferences.
    """
    comparisons = [_in_row(row, rows[0].number) for row in rows]
    first = comparisons[0]
    for other in comparisons[1:]:
        if other.turns != first.turns:
            raise RowError(f"row {other.row} has the id of row {first.row}, but another prompt or other media")
    said: dict[str, list[tuple[int, Side]]] = {}
    for c in comparisons:
        for side in (c.chosen, c.rejected):
            said.setdefault(side.text, []).append((c.row, side))
    texts = list(said)
    sides = [(texts.index(c.chosen.text), texts.index(c.rejected.text)) for c in comparisons]
    order, num_added = _order(said, comparisons, sides)
    factors = _factors(comparisons, sides)
    return Draft(
        turns=first.turns,
        responses=_responses(said, order),
        meta=first.meta
        | ({"ls_factor": [[*pair, factor] for pair, factor in factors.items()]} if factors else {})
        | ({"num_pairs_added": num_added} if num_added else {}),
        frame_order="name",
        unread=tuple(c.unread for c in comparisons),
    )


def _in_row(row: JsonRow, first: int) -> Comparison:
    try:
        return read_comparison(row)
    except RowError as error:
        raise RowError(str(error) if row.number == first else f"row {row.number} of the same id: {error}") from error


def _order(
    said: dict[str, list[tuple[int, Side]]], comparisons: list[Comparison], sides: list[_Pair]
) -> tuple[Order, int]:
    """The order that the rows tell, and how many of its pairs are in no row."""
    texts = list(said)
    rows = {pair: c.row for c, pair in reversed(list(zip(comparisons, sides, strict=True))) if not c.is_tie}
    ties = [pair for c, pair in zip(comparisons, sides, strict=True) if c.is_tie]
    groups = [_agreed(said[text], "tie_group", lambda side: side.tie_group) for text in texts]
    first_of = {group: groups.index(group) for group in groups if group is not None}
    ties += [(first_of[group], place) for place, group in enumerate(groups) if group is not None]
    try:
        order = order_from_pairs(len(texts), preferred=rows, ties=ties)
    except PreferenceCycle as cycle:
        raise RowError(f"the preferences form a cycle: {_told(cycle.steps, texts, rows)}") from cycle
    return order, order.num_pairs - len(rows)


def _told(steps: Sequence[_Pair], texts: list[str], rows: dict[_Pair, int]) -> str:
    first = min(range(len(steps)), key=lambda i: rows[steps[i]])
    steps = (*steps[first:], *steps[:first])
    told: list[str] = []
    for (winner, loser), (following, _) in zip(steps, (*steps[1:], steps[0]), strict=True):
        told.append(f"{shown(texts[winner])} > {shown(texts[loser])} (row {rows[winner, loser]})")
        if following != loser:
            told.append(f"{shown(texts[loser])} = {shown(texts[following])}")
    return ", ".join(told)


def _responses(said: dict[str, list[tuple[int, Side]]], order: Order) -> tuple[Response, ...]:
    """The responses, valued by their scores where these tell the same pairs, else by the order."""
    scores = [_agreed(some, "score", lambda side: side.score) for some in said.values()]
    preferred = {(i, j) for i, worse in enumerate(order.preferred_to) for j in worse}
    scored = None not in scores and preferred == {
        (p.chosen, p.rejected) for p in pairs_by_score(scores, score_margin=0)
    }
    return tuple(
        Response(
            text=text,
            score=scores[place],
            critique=_critique(some),
            provenance=_agreed(some, "model", lambda side: side.model),
            rank=None if scored or order.ranks is None else order.ranks[place],
            preferred_to=None if scored or order.ranks is not None else order.preferred_to[place],
            tied_with=None if scored or order.ranks is not None else order.tied_with[place],
        )
        for place, (text, some) in enumerate(said.items())
    )


def _critique(some: list[tuple[int, Side]]) -> str | None:
    """Every different reason given for a response: rows may give it another one each time."""
    return "\n".join(dict.fromkeys(side.reason for _, side in some if side.reason is not None)) or None


def _agreed(some: list[tuple[int, Side]], name: str, of: Callable[[Side], _T]) -> _T:
    """What every row says of a response.

    Raises:
        RowError: they differ.
    """
    for (_, one), (row, other) in pairwise(some):
        if of(one) != of(other):
            told = f"{shown(of(other))}, before it was {shown(of(one))}"
            raise RowError(f"row {row} gives the response {shown(other.text)} the {name} {told}")
    return of(some[0][1])


def _factors(comparisons: list[Comparison], sides: list[_Pair]) -> dict[_Pair, float]:
    factors: dict[_Pair, float] = {}
    for c, pair in zip(comparisons, sides, strict=True):
        if c.ls_factor is not None and factors.setdefault(pair, c.ls_factor) != c.ls_factor:
            raise RowError(f"row {c.row} gives a pair ls_factor = {c.ls_factor:g}, before it was {factors[pair]:g}")
    return factors
