"""``pairs``: a preferred and another answer, as most people write them.

A prompt in ``prompt`` or ``question``, text or chat turns, with ``chosen`` and ``rejected``, texts or chat turns (TRL,
RLAIF-V); without a prompt, what both conversations begin with. Or ``messages`` or ``conversations``: the prompt, with
one turn each in ``chosen`` and ``rejected`` (LLaMA-Factory), or a prompt and the preferred answer, with
``rejected_response`` or ``rejected_messages`` (ms-swift). Media as in ``plain_dpo``.
"""

import re
from typing import Any

from orchestrator.data.keys import check_keys, is_empty
from orchestrator.data.media import IMAGE_FIELDS, VIDEO_FIELDS, media_parts, refuse_placeholders
from orchestrator.data.readers.chat import asked, chat_turns, said, spoken, text_of
from orchestrator.data.readers.draft import Draft, row_object, scalar_meta, scalars
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, shown, text_field
from orchestrator.data.turns import EARLIER_FIELDS

_PROMPTS = ("prompt", "question")
_CHATS = ("messages", "conversations")
_SIDES = ("rejected_messages", "rejected_response")
"""Of ms-swift, in the order in which they are looked for."""
_PLACES = re.compile(r"<(?:image|video)>")
_META = ("id", "idx", "ds_name", "origin_dataset", "origin_split", "source", "category")
_READ = (
    *_PROMPTS, *_CHATS, "chosen", "rejected", "rejected_response", "rejected_messages", "rejected_images",
    *EARLIER_FIELDS, *VIDEO_FIELDS,
)  # fmt: skip


def read_pairs(row: Any) -> Draft:
    """Check one row; the chosen response gets rank 1, the rejected one rank 2.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(fields, (*_READ, *scalars(fields, _META)), images=IMAGE_FIELDS)
    _refuse_other_images(fields)
    turns, field, chosen, rejected = _sides(fields)
    _refuse_unused(fields, field)
    for text, name in ((chosen, "chosen"), (rejected, "rejected")):
        refuse_placeholders(text, name)
        if not text.strip():
            raise RowError(f"the {name} answer is {shown(text)}, expected text")
    if chosen == rejected:
        raise RowError(f"the chosen and the rejected answer are the same text, {shown(chosen)}")
    return Draft(
        turns=chat_turns(turns, media_parts(fields, image_fields=keys.images), field=field),
        responses=(Response(text=chosen, rank=1), Response(text=rejected, rank=2)),
        meta=scalar_meta(fields, _META),
        unread=(keys.unread,),
    )


def _sides(fields: dict[str, Any]) -> tuple[list[tuple[str, Any]], str, str, str]:
    """The prompt's turns and their field, and the two answers."""
    chat = _only(fields, _CHATS)
    if chat is not None:
        return _after_chat(fields, chat)
    prompt = _only(fields, _PROMPTS)
    if prompt is None:
        return _common_beginning(fields)
    whole = [fields.get("chosen"), fields.get("rejected")]
    turns = asked(fields, prompt)
    if all(isinstance(side, list) and len(side) > 1 for side in whole):  # each repeats the prompt
        beginning, _, chosen, rejected = _common_beginning(fields)
        if _plain(beginning) != _plain(turns):
            raise RowError(f"field 'chosen' begins otherwise than field {prompt!r}")
        return turns, prompt, chosen, rejected
    return turns, prompt, said(_given(fields, "chosen"), "chosen"), said(_given(fields, "rejected"), "rejected")


def _after_chat(fields: dict[str, Any], chat: str) -> tuple[list[tuple[str, Any]], str, str, str]:
    turns = asked(fields, chat)
    if not is_empty(fields.get("chosen")) or not is_empty(fields.get("rejected")):
        sides = (_one_turn(fields, "chosen"), _one_turn(fields, "rejected"))
        return turns, chat, *sides
    role, content = turns.pop()
    if role != "assistant":
        raise RowError(f"field {chat!r} ends with a turn of the {role}, expected the chosen answer")
    if not is_empty(fields.get("rejected_messages")):
        others = spoken(fields["rejected_messages"], "rejected_messages")
        if others[-1][0] != "assistant":
            raise RowError(f"field 'rejected_messages' ends with a turn of the {others[-1][0]}, expected an answer")
        if others[:-1] and others[:-1] != turns:
            raise RowError(f"field 'rejected_messages' begins otherwise than field {chat!r}")
        return turns, chat, text_of(content, chat), text_of(others[-1][1], "rejected_messages")
    if is_empty(fields.get("rejected_response")):
        raise RowError("the row has no rejected_response, nor rejected_messages: it prefers nothing to anything")
    return turns, chat, text_of(content, chat), text_field(fields, "rejected_response")


def _common_beginning(fields: dict[str, Any]) -> tuple[list[tuple[str, Any]], str, str, str]:
    for name in EARLIER_FIELDS:
        if not is_empty(fields.get(name)):
            raise RowError(f"field {name!r} stands beside conversations that hold the prompt themselves")
    chosen, rejected = (spoken(_given(fields, name), name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
        raise RowError("the row has no prompt, and 'chosen' and 'rejected' do not begin with the same turns")
    if {chosen[-1][0], rejected[-1][0]} != {"assistant"}:
        raise RowError("'chosen' and 'rejected' do not both end with a turn of the assistant")
    return chosen[:-1], "chosen", text_of(chosen[-1][1], "chosen"), text_of(rejected[-1][1], "rejected")


def _one_turn(fields: dict[str, Any], name: str) -> str:
    value = _given(fields, name)
    return said([value] if isinstance(value, dict) else value, name)


def _given(fields: dict[str, Any], name: str) -> Any:
    if is_empty(fields.get(name)):
        raise RowError(f"field {name!r} is missing")
    return fields[name]


def _only(fields: dict[str, Any], names: tuple[str, ...]) -> str | None:
    given = [name for name in names if not is_empty(fields.get(name))]
    if len(given) > 1:
        raise RowError(f"fields {given[0]!r} and {given[1]!r} are both given, expected one")
    return given[0] if given else None


def _words(part: Any) -> str:
    found = part.get("text") if isinstance(part, dict) else part
    return found if isinstance(found, str) else ""


def _plain(turns: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    """The words of turns, wherever their pictures stand among them."""
    texts = [
        content if isinstance(content, str) else " ".join(_words(part) for part in content) for _, content in turns
    ]
    return [(role, " ".join(_PLACES.sub(" ", text).split())) for (role, _), text in zip(turns, texts, strict=True)]


def _refuse_unused(fields: dict[str, Any], field: str) -> None:
    """Stop at a second prompt or a second answer: one of each is read."""
    swift = field in _CHATS and is_empty(fields.get("chosen")) and is_empty(fields.get("rejected"))
    given = [name for name in _SIDES if not is_empty(fields.get(name))]
    read = (field, *((given[0] if given else "",) if swift else ("chosen", "rejected")))
    for name in (*_PROMPTS, *_CHATS, "chosen", "rejected", *_SIDES):
        if name not in read and not is_empty(fields.get(name)):
            raise RowError(f"field {name!r} stands beside {' and '.join(map(repr, read))}, which are read instead")


def _refuse_other_images(fields: dict[str, Any]) -> None:
    others = fields.get("rejected_images")
    images = next((fields[name] for name in IMAGE_FIELDS if not is_empty(fields.get(name))), None)
    if not is_empty(others) and others != (images if isinstance(images, list) else [images]):
        raise RowError("field 'rejected_images' has others than the row: a pair is of two answers to one prompt")
