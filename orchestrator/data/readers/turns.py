"""The turns of a conversation, as rows spell them."""

from collections.abc import Sequence
from typing import Any

from orchestrator.data.fields import RowError, shown, text_field, unicode_text
from orchestrator.data.keys import is_empty

EARLIER_FIELDS = ("system", "history")
"""Fields of what was said before the prompt."""


def prompt_turns(row: dict[str, Any], prompt_field: str) -> list[tuple[str, str]]:
    """Role and text of each turn of a prompt: ``system``, every question and answer of ``history``, the prompt itself.

    Raises:
        RowError: naming field and value.
    """
    turns = system_turn(row)
    for question, answer in _history(row):
        turns += [("user", question), ("assistant", answer)]
    return [*turns, ("user", text_field(row, prompt_field))]


def system_turn(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The turn that the field ``system`` stands for; none where it is empty.

    Raises:
        RowError: it is no text.
    """
    return [] if is_empty(row.get("system")) else [("system", text_field(row, "system"))]


def check_order(roles: Sequence[str], *, field: str) -> None:
    """A system turn may come first; then user and assistant take turns, as chat templates demand.

    Raises:
        RowError: naming the field and the turn out of place.
    """
    last = None
    for role in roles:
        expected = {None: ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user",)}[last]
        if role not in expected:
            place = "at the start" if last is None else f"after one of the {last}"
            raise RowError(f"field {field!r} has a turn of the {role} {place}, expected {' or '.join(expected)}")
        last = role


def _history(row: dict[str, Any]) -> list[tuple[str, str]]:
    history = row.get("history")
    if is_empty(history):
        return []
    if not isinstance(history, list):
        raise RowError(f"field 'history' is {shown(history)}, expected a list of [question, answer]")
    for pair in history:
        texts = (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and text.strip() for text in pair)
        )
        if not texts:
            raise RowError(f"field 'history' has {shown(pair)}, expected [question, answer]")
    return [(unicode_text(question, "history"), unicode_text(answer, "history")) for question, answer in history]
