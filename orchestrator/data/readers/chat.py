"""Conversations as people's files spell them: ``{"role", "content"}`` or ``{"from", "value"}``, text or parts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from orchestrator.data.keys import is_empty
from orchestrator.data.media import Turn, place_media
from orchestrator.data.rows import RowError, shown, unicode_text
from orchestrator.data.turns import prompt_turns, system_turn

ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "model": "assistant", "bot": "assistant",
}  # fmt: skip
"""Whose turn it is, by how files spell that."""
_TURN = (("role", "from"), ("content", "value"))
"""Two names each for whose turn it is and for what it says."""
_KINDS = {"image_url": "image", "input_image": "image", "input_text": "text", "video_url": "video"}
_NAMED = ("image", "image_url", "url", "path", "video", "video_url")
"""Keys of a part under which its medium may be named."""
_HINTS = ("detail",)
"""Say to somebody's service how closely to look; here everything is looked at whole."""


def spoken(value: Any, field: str) -> list[tuple[str, Any]]:
    """Role and content of each turn.

    Raises:
        RowError: it is no conversation.
    """
    if not isinstance(value, list) or not value:
        raise RowError(f"field {field!r} is {shown(value)}, expected a list of chat turns")
    turns = []
    for turn in value:
        told = turn if isinstance(turn, dict) else {}
        role, content = told.get("role", told.get("from")), told.get("content", told.get("value"))
        if not isinstance(role, str) or role not in ROLES:
            raise RowError(f"field {field!r} has a turn of {shown(role)}, expected {', '.join(ROLES)}")
        if not isinstance(content, str | list) or not content:
            raise RowError(f"field {field!r} has a turn that says {shown(content)}, expected text or parts")
        for names in _TURN:
            if all(told.get(name) is not None for name in names):
                raise RowError(f"field {field!r} has a turn with {names[0]!r} and {names[1]!r}, expected one of them")
        _refuse_unread(told, (name for names in _TURN for name in names), field, "a turn")
        turns.append((ROLES[role], content))
    return turns


def asked(fields: dict[str, Any], field: str) -> list[tuple[str, Any]]:
    """The turns of a prompt in ``field``: text, after ``system`` and ``history``, or a conversation, after ``system``.

    Raises:
        RowError: naming field and value.
    """
    if not isinstance(fields[field], list):
        return list(prompt_turns(fields, field))
    turns, before = spoken(fields[field], field), system_turn(fields)
    if before and turns[0][0] == "system":
        raise RowError(f"fields 'system' and {field!r} both have a turn of the system, expected one")
    if not is_empty(fields.get("history")):
        raise RowError(f"field 'history' stands beside {field!r}, which is a conversation itself")
    return [*before, *turns]


def chat_turns(
    turns: Sequence[tuple[str, Any]], media: dict[str, list[dict[str, str]]], *, field: str
) -> tuple[Turn, ...]:
    """Turns with the row's media where the words have placeholders, or the parts an image without a name.

    Raises:
        RowError: they differ in number.
    """
    if all(isinstance(content, str) for _, content in turns):
        return place_media([(role, unicode_text(content, field)) for role, content in turns], media)
    waiting = {kind: iter(parts) for kind, parts in media.items()}
    made = tuple({"role": role, "content": list(_parts(content, waiting, field))} for role, content in turns)
    left = {kind: len(list(rest)) for kind, rest in waiting.items()}
    if not any(part["type"] != "text" for turn in made for part in turn["content"]) and sum(left.values()) == 1:
        (part,) = (part for parts in media.values() for part in parts)
        first = next((i for i, turn in enumerate(made) if turn["role"] == "user"), 0)
        made[first]["content"].insert(0, part)
    elif any(left.values()):
        told = ", ".join(f"{count} {kind}s" for kind, count in left.items() if count)
        raise RowError(f"the row has {told} more than field {field!r} has places for")
    return made


def said(value: Any, field: str) -> str:
    """The text of an answer: as it is, or the only turn of a conversation, of text alone.

    Raises:
        RowError: it is something else.
    """
    if isinstance(value, str):
        return unicode_text(value, field)
    turns = spoken(value, field)
    if len(turns) != 1 or turns[0][0] != "assistant":
        raise RowError(f"field {field!r} has {len(turns)} turns, expected one of the assistant")
    return text_of(turns[0][1], field)


def text_of(content: Any, field: str) -> str:
    """What a turn of text alone says.

    Raises:
        RowError: it has a part that is no text.
    """
    if isinstance(content, str):
        return unicode_text(content, field)
    parts = list(_parts(content, {"image": iter(()), "video": iter(())}, field))
    if any(part["type"] != "text" for part in parts):
        raise RowError(f"field {field!r} answers with a picture, expected text alone")
    return "".join(part["text"] for part in parts)


def _parts(content: Any, waiting: dict[str, Iterator[dict[str, str]]], field: str) -> Iterator[dict[str, str]]:
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        kind = part.get("type") if isinstance(part, dict) else None
        kind = _KINDS.get(str(kind), kind)
        if kind == "text" and isinstance(part.get("text"), str):
            _refuse_unread(part, ("type", "text"), field, "a text")
            yield {"type": "text", "text": unicode_text(part["text"], field)}
        elif kind in ("image", "video"):
            yield _medium(part, kind, waiting, field)
        else:
            raise RowError(f"field {field!r} has the part {shown(part)}, expected text, image or video")


def _medium(
    part: dict[str, Any], kind: str, waiting: dict[str, Iterator[dict[str, str]]], field: str
) -> dict[str, str]:
    given = [part[key] for key in _NAMED if part.get(key) is not None]
    _refuse_unread(part, ("type", *_NAMED, *_HINTS), field, f"an {kind}" if kind == "image" else f"a {kind}")
    if any(other != given[0] for other in given[1:]):
        raise RowError(
            f"field {field!r} has a part with two names of its {kind}, {shown(given[0])} and {shown(given[1])}"
        )
    name = given[0] if given else None
    if isinstance(name, dict):
        _refuse_unread(name, ("url", *_HINTS), field, f"an address of its {kind}")
        name = name.get("url")
    if name is None and not given:
        medium = next(waiting[kind], None)
        if medium is None:
            raise RowError(f"field {field!r} has more {kind}s than the row names")
        return medium
    if not isinstance(name, str) or not name.strip():
        raise RowError(f"field {field!r} has a part whose {kind} is {shown(name)}, expected a path")
    return {"type": kind, kind: name}


def _refuse_unread(part: dict[str, Any], read: Iterable[str], field: str, what: str) -> None:
    known = tuple(read)
    unread = next((key for key in part if key not in known and not is_empty(part[key])), None)
    if unread is not None:
        raise RowError(f"field {field!r} has {what} with {shown(unread)}, which is not read")
