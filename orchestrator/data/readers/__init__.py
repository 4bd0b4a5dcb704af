"""Readers of people's files: each a function from one decoded row to a draft, found by the name of its format."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from orchestrator.config.formats import FORMATS, format_of
from orchestrator.config.plugins import load_object, plugin_digest
from orchestrator.data.readers.draft import Draft
from orchestrator.data.rows import RowError, shown

Read = Callable[[Any], Draft | tuple[Draft, ...]]
"""Of a row of the file, or of several, one draft, or one for each of a conversation's answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A format's reader, or one of the user's."""

    name: str
    """As a store has it: that of the format, or file, name and digest."""
    read: Read
    rows_share: str | None
    """See ``Format``."""


def reader_of(read_by: str) -> Reader:
    """The reader of a format in the table, or of ``FILE.py:NAME``.

    Raises:
        RefusedInput: see ``format_of``.
    """
    found = format_of(read_by)
    if read_by in FORMATS:
        module, _, function = found.reader.partition(":")
        read: Read = getattr(import_module(f"{__name__}.{module}"), function)
        return Reader(name=read_by, read=read, rows_share=found.rows_share)
    name = f"{read_by} {plugin_digest(read_by, option='data.reader')}"
    return Reader(name=name, read=_of_user(read_by), rows_share=found.rows_share)


def _of_user(read_by: str) -> Read:
    """Whatever the user's function does with a row it cannot read, the row is a bad one and the others are read."""
    theirs = load_object(read_by, option="data.reader")

    def read(row: Any) -> tuple[Draft, ...]:
        try:
            made = theirs(row)
        except RowError:
            raise
        except Exception as error:
            raise RowError(f"data.reader = {read_by!r} fails on it ({type(error).__name__}: {error})") from error
        drafts = made if isinstance(made, tuple) else (made,)
        if not drafts or not all(isinstance(draft, Draft) for draft in drafts):
            raise RowError(f"data.reader = {read_by!r} makes {shown(made)} of it, expected a Draft or a tuple of them")
        if wrong := [turn for draft in drafts for turn in draft.turns if not _is_turn(turn)]:
            expected = "a role of system, user or assistant, and a list of text, image and video parts"
            raise RowError(f"data.reader = {read_by!r} makes the turn {shown(wrong[0])} of it, expected {expected}")
        return drafts

    return read


def _is_turn(turn: Any) -> bool:
    content = turn.get("content") if isinstance(turn, dict) else None
    if not isinstance(content, list) or turn.get("role") not in ("system", "user", "assistant"):
        return False
    kinds = [(part, part.get("type")) for part in content if isinstance(part, dict)]
    return len(kinds) == len(content) and all(
        kind in ("text", "image", "video") and isinstance(part.get(kind), str) for part, kind in kinds
    )
