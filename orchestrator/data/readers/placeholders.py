"""Where the media of a row stand in its text: ``<image>`` and ``<video>`` in user turns.

One image or video and no placeholder: it comes first. Otherwise there is one placeholder for each. A line break beside
a placeholder belongs to it.
"""

import re
from collections.abc import Sequence
from typing import Any

from orchestrator.data.fields import RowError, shown
from orchestrator.data.keys import is_empty
from orchestrator.data.media_sources import Turn

IMAGE_FIELDS = ("image", "images")
VIDEO_FIELDS = ("video", "videos")
_PLACEHOLDER = re.compile(r"<(image|video)>")
_CUT = re.compile(r"\n?<(image|video)>\n?")


def media_parts(row: dict[str, Any], *, image_fields: Sequence[str] = IMAGE_FIELDS) -> dict[str, list[dict[str, str]]]:
    """Parts naming the media of a row, by kind; a field is a path or a list of paths; an empty one is none.

    Raises:
        RowError: a field is something else, or two speak of the same kind.
    """
    return {"image": _parts(row, "image", image_fields), "video": _parts(row, "video", VIDEO_FIELDS)}


def place_media(turns: Sequence[tuple[str, str]], media: dict[str, list[dict[str, str]]]) -> tuple[Turn, ...]:
    """Chat turns with the media where their placeholders stand.

    Args:
        turns: Role and text of each.
        media: See ``media_parts``.

    Raises:
        RowError: placeholders and media differ in number, or a placeholder stands outside the user turns.
    """
    texts = []
    for role, text in turns:
        if role == "user":
            texts.append(text)
        else:
            refuse_placeholders(text, f"{role} turn")
    counts = {kind: sum(text.count(f"<{kind}>") for text in texts) for kind in media}
    every = [part for parts in media.values() for part in parts]
    if len(every) == 1 and not any(counts.values()):
        return _first(turns, every[0])
    for kind, parts in media.items():
        if counts[kind] != len(parts):
            raise RowError(f"the prompt has {counts[kind]} '<{kind}>' placeholders, the row has {len(parts)} {kind}s")
    waiting = {kind: iter(parts) for kind, parts in media.items()}
    return tuple({"role": role, "content": _content(text, waiting)} for role, text in turns)


def spelt_media(content: Sequence[dict[str, Any]], kind: str) -> str:
    """The text that ``place_media`` reads as these parts: the way back.

    Args:
        kind: What the images are: each an ``image``, or those beside each other a ``video``.

    Raises:
        ValueError: a text holds a placeholder of its own.
    """
    text, last = "", "text"
    words = ""
    for part in [*content, {"type": "end"}]:
        if part["type"] == "text":
            words += part["text"]
            last = "text"
            continue
        found = _PLACEHOLDER.search(words)
        if found is not None:
            raise ValueError(f"holds the text {found[0]!r}")
        text, words = text + words, ""
        if part["type"] == "image" and not (last == "image" and kind == "video"):
            # A line break beside a placeholder belongs to it: one of the words needs another.
            text += ("\n" if last == "text" and text.endswith("\n") else "") + f"<{kind}>\n"
        last = part["type"]
    return text


def refuse_placeholders(text: str, field: str) -> None:
    """Stop where no medium can stand.

    Raises:
        RowError: naming the field and the placeholder.
    """
    found = _PLACEHOLDER.search(text)
    if found is not None:
        raise RowError(f"field {field!r} holds the placeholder {found[0]!r}, which only a user turn may")


def _parts(row: dict[str, Any], kind: str, fields: Sequence[str]) -> list[dict[str, str]]:
    given = [name for name in fields if not is_empty(row.get(name))]
    if len(given) > 1:
        raise RowError(f"fields {given[0]!r} and {given[1]!r} are both given, expected one")
    if not given:
        return []
    names = row[given[0]]
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise RowError(f"field {given[0]!r} is {shown(names)}, expected a path or a list of paths")
    return [{"type": kind, kind: name} for name in names]


def _first(turns: Sequence[tuple[str, str]], part: dict[str, str]) -> tuple[Turn, ...]:
    first = next((i for i, (role, _) in enumerate(turns) if role == "user"), None)
    if first is None:
        raise RowError(f"the row has a {part['type']} and no user turn to hold it")
    return tuple(
        {"role": role, "content": [*([part] if i == first else []), {"type": "text", "text": text}]}
        for i, (role, text) in enumerate(turns)
    )


def _content(text: str, waiting: dict[str, Any]) -> list[dict[str, str]]:
    # Split with one group: texts at even places, the kinds of the placeholders between them at odd ones.
    pieces = _CUT.split(text)
    return [
        next(waiting[piece]) if i % 2 else {"type": "text", "text": piece} for i, piece in enumerate(pieces) if piece
    ]
