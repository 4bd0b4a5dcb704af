"""``vlquery_json``: ``{"conversations": [{"from", "value"}, ...]}`` with media fields as in ``plain_dpo``, for ``sft``.

``from`` is ``user`` or ``human``, ``assistant`` or ``gpt``, or ``system``, which may be a field of its own instead. Or
``messages`` of ``role`` and ``content``, text or parts.
Every answer is learned: a conversation of N answers is N instructions, the prompt of each all the turns before it.
"""

from typing import Any

from orchestrator.data.keys import check_keys, is_empty, unread_inside
from orchestrator.data.media import IMAGE_FIELDS, VIDEO_FIELDS, media_parts, refuse_placeholders
from orchestrator.data.readers.chat import asked, chat_turns, text_of
from orchestrator.data.readers.draft import Draft, row_object, scalar_meta, scalars
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, shown, text_field
from orchestrator.data.turns import check_order, system_turn

_READ = ("conversations", "messages", "system", *VIDEO_FIELDS)
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
_LEARNED = ("loss", "weight", "train")
"""Keys by which others say whether a turn is learned."""


def read_vlquery_json(row: Any) -> tuple[Draft, ...]:
    """Check one row; a draft for each of its answers, which has neither rank nor score.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(fields, (*_READ, *scalars(fields, ("id",))), images=IMAGE_FIELDS)
    field, turns, inside = _turns(fields)
    check_order([role for role, _ in turns], field=field)
    last, _ = turns[-1]
    if last != "assistant":
        raise RowError(f"field {field!r} ends with a turn of the {last}, expected an answer to a user turn")
    prompt = chat_turns(turns, media_parts(fields, image_fields=keys.images), field=field)
    unread = ((*keys.unread, *inside),)
    return tuple(
        Draft(
            turns=prompt[:place],
            responses=(Response(text=_answer(content, field)),),
            meta=scalar_meta(fields, ("id",)),
            unread=unread,
        )
        for place, (role, content) in enumerate(turns)
        if role == "assistant"
    )


def _turns(fields: dict[str, Any]) -> tuple[str, list[tuple[str, Any]], list[str]]:
    """The field of the conversation, role and content of its turns, and the keys in it that nobody reads."""
    if is_empty(fields.get("messages")):
        told = _spoken(fields)
        turns: list[tuple[str, Any]] = [(_ROLES[turn["from"]], text_field(turn, "value")) for turn in told]
        inside = [key for turn in told for key in unread_inside(turn, ("from", "value"), where="conversations")]
        return "conversations", [*system_turn(fields), *turns], inside
    if not is_empty(fields.get("conversations")):
        raise RowError("fields 'conversations' and 'messages' are both given, expected one")
    return "messages", asked(fields, "messages"), []


def _answer(content: Any, field: str) -> str:
    text = text_of(content, field)
    refuse_placeholders(text, field)
    if not text.strip():
        raise RowError(f"field {field!r} answers {shown(text)}, expected text")
    return text


def _spoken(fields: dict[str, Any]) -> list[dict[str, Any]]:
    conversation = fields.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        raise RowError(f"field 'conversations' is {shown(conversation)}, expected a list of turns")
    for turn in conversation:
        sender = turn.get("from") if isinstance(turn, dict) else None
        if not isinstance(sender, str) or sender not in _ROLES:
            raise RowError(f"field 'conversations' has a turn from {shown(sender)}, expected {', '.join(_ROLES)}")
        for name in _LEARNED:
            if turn.get(name) not in (None, True):
                told = f"field 'conversations' has a turn whose {name!r} is {shown(turn[name])}"
                raise RowError(f"{told}, but every answer is learned, each as much")
    return conversation
