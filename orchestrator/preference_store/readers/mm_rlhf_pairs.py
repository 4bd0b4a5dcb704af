"""``mm_rlhf_pairs``: ``dpo_pairs.jsonl`` of MM-RLHF, one comparison a row, and what we export for swift.

All rows with the same ``id``, wherever they stand, are one instruction. Its responses are their different texts, in
order of first appearance; the reasons given for a response are its critique; ranks are recovered from the pairs, see
``ranks_from_pairs``. ``meta`` has ``ls_factor`` as a list of ``[chosen, rejected, factor]``, by index of the responses,
and ``num_pairs_added``, the pairs of the view that are in no row, where there are any.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.datasets.fields import RowError, shown, unicode_text
from orchestrator.datasets.json_rows import JsonRow
from orchestrator.datasets.media_sources import Turn
from orchestrator.preference_store.pairs import pairs_by_rank
from orchestrator.preference_store.ranking import PreferenceCycle, ranks_from_pairs
from orchestrator.preference_store.readers.draft import Draft, response_text, row_object, scalar_meta
from orchestrator.preference_store.readers.mm_rlhf_prompt import media_meta, prompt_turn, refuse_unknown_keys
from orchestrator.preference_store.records import Response

GROUP_FIELD = "id"
"""Names the instruction of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairKeys:
    """Names of the fields of a comparison that are not always the same."""

    prompt: str
    chosen: str
    rejected: str
    images: tuple[str, ...]


RELEASED = PairKeys(prompt="prompt", chosen="chosen", rejected="rejected", images=("image",))
"""As published; the original's loader and its issues show these names and those in ``_KEPT`` and ``_LEFT_OUT``."""
SWIFT = PairKeys(prompt="question", chosen="response", rejected="rejected_response", images=("image", "images"))
"""As exported by us; the names are swift's."""
_KEPT = (GROUP_FIELD, "video", "category", "chosen_reason", "rejected_reason", "is_tie", "ls_factor")
# Log-probs belong to a model that the row does not name. Conversations stand only in rows without media.
_LEFT_OUT = (
    "reference_chosen_logp", "reference_rejected_logp", "mix_reference_chosen_logp", "mix_reference_rejected_logp",
    "mixed_up_image", "conversations",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    row: int
    turn: Turn
    meta: dict[str, Any]
    chosen: str
    rejected: str
    reasons: tuple[str | None, str | None]
    is_tie: bool
    ls_factor: float | None


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
        if other.turn != first.turn:
            raise RowError(f"row {other.row} has the id of row {first.row}, but another prompt or other media")
    texts = list(dict.fromkeys(text for c in comparisons for text in (c.chosen, c.rejected)))
    index = {text: place for place, text in enumerate(texts)}
    sides = [(index[c.chosen], index[c.rejected]) for c in comparisons]
    ranks, num_added = _ranks(texts, comparisons, sides)
    factors = _factors(comparisons, sides)
    return Draft(
        turns=(first.turn,),
        responses=tuple(
            Response(text=text, rank=rank, critique=_critique(text, comparisons))
            for text, rank in zip(texts, ranks, strict=True)
        ),
        meta=first.meta
        | ({"ls_factor": [[*pair, factor] for pair, factor in factors.items()]} if factors else {})
        | ({"num_pairs_added": num_added} if num_added else {}),
        frame_order="name",
    )


def _in_row(row: JsonRow, first: int) -> _Comparison:
    try:
        return _comparison(row)
    except RowError as error:
        raise RowError(str(error) if row.number == first else f"row {row.number} of the same id: {error}") from error


def _comparison(row: JsonRow) -> _Comparison:
    fields = row_object(row.value)
    keys = SWIFT if SWIFT.prompt in fields else RELEASED
    known = (keys.prompt, keys.chosen, keys.rejected, *keys.images, *_KEPT, *_LEFT_OUT)
    refuse_unknown_keys(fields, known, where="the row")
    if not isinstance(fields.get(GROUP_FIELD), str | int) or isinstance(fields[GROUP_FIELD], bool):
        raise RowError(f"field {GROUP_FIELD!r} is {shown(fields.get(GROUP_FIELD))}, expected text or a whole number")
    turn = prompt_turn(fields, keys.prompt, image_fields=keys.images)
    chosen, rejected = response_text(fields, keys.chosen), response_text(fields, keys.rejected)
    if chosen == rejected:
        raise RowError(f"fields {keys.chosen!r} and {keys.rejected!r} are the same text, {shown(chosen)}")
    return _Comparison(
        row=row.number,
        turn=turn,
        meta=scalar_meta(fields, (GROUP_FIELD, "category")) | media_meta(turn),
        chosen=chosen,
        rejected=rejected,
        reasons=(_reason(fields, "chosen_reason"), _reason(fields, "rejected_reason")),
        is_tie=_is_tie(fields),
        ls_factor=_factor(fields),
    )


def _reason(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise RowError(f"field {name!r} is {shown(value)}, expected text")
    return unicode_text(value, name) if value and value.strip() else None


def _is_tie(fields: dict[str, Any]) -> bool:
    value = fields.get("is_tie")
    if value is not None and not isinstance(value, bool):
        raise RowError(f"field 'is_tie' is {shown(value)}, expected true or false")
    return value is True


def _factor(fields: dict[str, Any]) -> float | None:
    value = fields.get("ls_factor")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RowError(f"field 'ls_factor' is {shown(value)}, expected a finite number")
    return float(value)


def _ranks(
    texts: list[str], comparisons: list[_Comparison], sides: list[tuple[int, int]]
) -> tuple[tuple[int, ...], int]:
    """Ranks, and how many pairs of their view are in no row."""
    rows = {pair: c.row for c, pair in reversed(list(zip(comparisons, sides, strict=True))) if not c.is_tie}
    ties = [pair for c, pair in zip(comparisons, sides, strict=True) if c.is_tie]
    try:
        ranks = ranks_from_pairs(len(texts), preferred=rows, ties=ties)
    except PreferenceCycle as cycle:
        raise RowError(f"the preferences form a cycle: {_told(cycle.steps, texts, rows)}") from cycle
    return ranks, len(pairs_by_rank(ranks)) - len(rows)


def _told(steps: Sequence[tuple[int, int]], texts: list[str], rows: dict[tuple[int, int], int]) -> str:
    first = min(range(len(steps)), key=lambda i: rows[steps[i]])
    steps = (*steps[first:], *steps[:first])
    told: list[str] = []
    for (winner, loser), (following, _) in zip(steps, (*steps[1:], steps[0]), strict=True):
        told.append(f"{shown(texts[winner])} > {shown(texts[loser])} (row {rows[winner, loser]})")
        if following != loser:
            told.append(f"{shown(texts[loser])} = {shown(texts[following])}")
    return ", ".join(told)


def _critique(text: str, comparisons: list[_Comparison]) -> str | None:
    """Every different reason given for a response: rows may give it another one each time."""
    sides = (side for c in comparisons for side in zip((c.chosen, c.rejected), c.reasons, strict=True))
    reasons = dict.fromkeys(reason for side, reason in sides if side == text and reason is not None)
    return "\n".join(reasons) or None


def _factors(comparisons: list[_Comparison], sides: list[tuple[int, int]]) -> dict[tuple[int, int], float]:
    factors: dict[tuple[int, int], float] = {}
    for c, pair in zip(comparisons, sides, strict=True):
        if c.ls_factor is not None and factors.setdefault(pair, c.ls_factor) != c.ls_factor:
            raise RowError(f"row {c.row} gives a pair ls_factor = {c.ls_factor:g}, before it was {factors[pair]:g}")
    return factors
