"""What every reader gives: a row with its turns and responses checked, its media named but not opened.

A row is one draft, a conversation one for each of its answers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.data.media import Turn, refuse_placeholders
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, shown, text_field, unicode_text
from workers.multimodal.media import FrameOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A row that is fine as far as its media are."""

    turns: tuple[Turn, ...]
    """Parts still name their media."""
    responses: tuple[Response, ...] = ()
    label: str | None = None
    """What rewards compare an answer with; of a pairwise judgement, the preferred response, ``"1"`` or ``"2"``."""
    meta: dict[str, Any] = field(default_factory=dict)
    frame_order: FrameOrder = "natural"
    """Of the frames of its videos."""
    in_row: tuple[str, ...] = ()
    """Pictures that stand in the row, one for each image that its turns name: used where a name is no file."""
    unread: tuple[tuple[str, ...], ...] = ((),)
    """Keys that nobody reads, for each row of the file that it is made of; see ``orchestrator.data.keys``."""


def row_object(row: Any) -> dict[str, Any]:
    """The row, which must be an object.

    Raises:
        RowError: it is something else.
    """
    if not isinstance(row, dict):
        raise RowError(f"the row is {shown(row)}, expected an object")
    return row


def response_text(row: dict[str, Any], field: str) -> str:
    """The text of a response; one that holds a placeholder would ask the model for an image that is not there.

    Raises:
        RowError: it is no text, or holds a placeholder.
    """
    text = text_field(row, field)
    refuse_placeholders(text, field)
    return text


def chosen_and_rejected(row: dict[str, Any]) -> tuple[Response, Response]:
    """The two sides of a pair, ranked 1 and 2.

    Raises:
        RowError: a side is no text, or both are the same.
    """
    chosen, rejected = response_text(row, "chosen"), response_text(row, "rejected")
    if chosen == rejected:
        raise RowError(f"fields 'chosen' and 'rejected' are the same text, {shown(chosen)}")
    return Response(text=chosen, rank=1), Response(text=rejected, rank=2)


def scalars(row: dict[str, Any], fields: Iterable[str]) -> tuple[str, ...]:
    """Those of the fields that ``scalar_meta`` keeps, if they say anything; the others nobody reads."""
    return tuple(name for name in fields if isinstance(row.get(name), str | int | float))


def refuse_unkept(row: dict[str, Any], fields: Iterable[str]) -> None:
    """Stop at one of the fields that ``scalar_meta`` would not keep, in a format whose keys are all declared.

    Raises:
        RowError: naming field and value.
    """
    for name in fields:
        if row.get(name) is not None and not isinstance(row[name], str | int | float):
            raise RowError(f"field {name!r} is {shown(row[name])}, expected text or a number")


def scalar_meta(row: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Those of the fields that the row has and that are texts or numbers.

    Raises:
        RowError: a text is not valid Unicode.
    """
    found = {name: row[name] for name in fields if isinstance(row.get(name), str | int | float)}
    return {name: unicode_text(value, name) if isinstance(value, str) else value for name, value in found.items()}
