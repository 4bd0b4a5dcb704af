"""``plain_kto``: one answer and whether somebody liked it.

``{"prompt", "completion", "label"}``, texts or chat turns (TRL); or a conversation in ``messages`` or ``conversations``
whose last turn is the answer, with ``label`` (ms-swift) or ``kto_tag`` (LLaMA-Factory). Media as in ``plain_dpo``.
"""

from typing import Any

from orchestrator.data.keys import check_keys, is_empty
from orchestrator.data.media import IMAGE_FIELDS, VIDEO_FIELDS, media_parts, refuse_placeholders
from orchestrator.data.readers.chat import asked, chat_turns, said, text_of
from orchestrator.data.readers.draft import Draft, response_text, row_object, scalar_meta, scalars
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, shown
from orchestrator.data.turns import EARLIER_FIELDS

_CHATS = ("messages", "conversations")
_LABELS = ("label", "kto_tag")
_READ = ("prompt", "completion", *_CHATS, *_LABELS, *EARLIER_FIELDS, *VIDEO_FIELDS)
_LIKED, _DISLIKED = 1.0, -1.0


def read_plain_kto(row: Any) -> Draft:
    """Check one row; the score of its response is 1 where the label is true and −1 where it is false.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(fields, (*_READ, *scalars(fields, ("id",))), images=IMAGE_FIELDS)
    score = _LIKED if _label(fields) else _DISLIKED
    turns, field, answer = _asked_and_answered(fields)
    return Draft(
        turns=chat_turns(turns, media_parts(fields, image_fields=keys.images), field=field),
        responses=(Response(text=answer, score=score),),
        meta=scalar_meta(fields, ("id",)),
        unread=(keys.unread,),
    )


def _label(fields: dict[str, Any]) -> bool:
    given = [name for name in _LABELS if fields.get(name) is not None]
    if len(given) > 1:
        raise RowError(f"fields {given[0]!r} and {given[1]!r} are both given, expected one")
    name = given[0] if given else _LABELS[0]
    if not isinstance(fields.get(name), bool):
        raise RowError(f"field {name!r} is {shown(fields.get(name))}, expected true or false")
    return fields[name]


def _asked_and_answered(fields: dict[str, Any]) -> tuple[list[tuple[str, Any]], str, str]:
    """The prompt's turns and their field, and the answer."""
    given = [name for name in ("prompt", *_CHATS) if not is_empty(fields.get(name))]
    if len(given) > 1:
        raise RowError(f"fields {given[0]!r} and {given[1]!r} are both given, expected one")
    field = given[0] if given else "prompt"
    if field == "prompt":
        turns = asked({field: None, **fields}, field)
        completion = fields.get("completion")
        is_chat = isinstance(completion, list)
        return turns, field, _said(said(completion, "completion")) if is_chat else response_text(fields, "completion")
    if not is_empty(fields.get("completion")):
        raise RowError(f"field 'completion' stands beside {field!r}, whose last turn is the answer")
    turns = asked(fields, field)
    role, content = turns.pop()
    if role != "assistant":
        raise RowError(f"field {field!r} ends with a turn of the {role}, expected the answer")
    return turns, field, _said(text_of(content, field), field)


def _said(text: str, field: str = "completion") -> str:
    refuse_placeholders(text, field)
    if not text.strip():
        raise RowError(f"field {field!r} answers {shown(text)}, expected text")
    return text
