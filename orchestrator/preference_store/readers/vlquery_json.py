"""``vlquery_json``: ``{"conversations": [{"from", "value"}, ...]}`` with media fields as in ``plain_dpo``, for ``sft``.

``from`` is ``user`` or ``human``, ``assistant`` or ``gpt``, or ``system``. The last turn is the response, the turns
before it are the prompt.
"""

from typing import Any

from orchestrator.datasets.fields import RowError, shown, text_field
from orchestrator.preference_store.readers.draft import Draft, response_text, row_object, scalar_meta
from orchestrator.preference_store.readers.placeholders import media_parts, place_media
from orchestrator.preference_store.records import Response

_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}


def read_vlquery_json(row: Any) -> Draft:
    """Check one row; its one response has neither rank nor score.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    turns = _turns(fields)
    *prompt, (last, _) = turns
    if last != "assistant" or not prompt:
        raise RowError(f"field 'conversations' ends with a turn of the {last}, expected an answer to a user turn")
    return Draft(
        turns=place_media(prompt, media_parts(fields)),
        responses=(Response(text=response_text(fields["conversations"][-1], "value")),),
        meta=scalar_meta(fields, ("id",)),
    )


def _turns(fields: dict[str, Any]) -> list[tuple[str, str]]:
    conversation = fields.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        raise RowError(f"field 'conversations' is {shown(conversation)}, expected a list of turns")
    turns: list[tuple[str, str]] = []
    for turn in conversation:
        sender = turn.get("from") if isinstance(turn, dict) else None
        if not isinstance(sender, str) or sender not in _ROLES:
            raise RowError(f"field 'conversations' has a turn from {shown(sender)}, expected {', '.join(_ROLES)}")
        role = _ROLES[sender]
        _check_order(role, [before for before, _ in turns])
        turns.append((role, text_field(turn, "value")))
    return turns


def _check_order(role: str, before: list[str]) -> None:
    """A system turn may come first; then user and assistant take turns, as chat templates demand."""
    last = before[-1] if before else None
    expected = {None: ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user",)}[last]
    if role not in expected:
        place = "at the start" if last is None else f"after one of the {last}"
        raise RowError(f"field 'conversations' has a turn of the {role} {place}, expected {' or '.join(expected)}")
