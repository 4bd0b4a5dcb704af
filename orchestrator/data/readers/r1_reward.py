"""``r1_reward``: rows of R1-Reward-RL, pairwise judgements over images.

A row is ``{"message": "<JSON of a chat list>", "question": str, "answer": ["<answer>2</answer>"]}``; content parts
are ``text``, ``image`` (a path) and ``video`` (a folder of frames, used as that many images). Its turns name their
media themselves, so that placeholders mean nothing in them; but ``image`` beside the message stands for images where
the message has none: where the user's words have ``<image>``, else before them all. ``response`` is an optional
demonstration. Rows that are made here (``orchestrator.data.judgements``) have an ``id``, the ``evaluator_prompt`` that
they ask with, and perhaps how an annotator's attempts went.
"""

import re
from collections.abc import Iterator
from typing import Any

from orchestrator.data.keys import check_keys, is_empty, unread_inside
from orchestrator.data.media import Turn, media_parts
from orchestrator.data.readers.draft import Draft, row_object, scalar_meta, scalars
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, json_field, row_pictures, shown, text_field, unicode_text
from orchestrator.data.turns import words

_ANSWER = re.compile(r"\s*([12])\s*|\s*<answer>\s*([12])\s*</answer>\s*")
_PLACE = re.compile(r"\n?<image>\n?")
_ROLES = ("system", "user", "assistant")
_PARTS = ("text", "image", "video")
_OF_OURS = ("id", "evaluator_prompt", "right", "tried", "difficulty")


def read_r1_reward(row: Any) -> Draft:
    """Check one row; its demonstration, if it has one, is the response, its question is in ``meta``.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    turns = tuple(_turn(turn) for turn in _chat(fields))
    demonstrated = () if fields.get("response") is None else (Response(text=text_field(fields, "response")),)
    label = _label(fields)
    media = [part[part["type"]] for turn in turns for part in turn["content"] if part["type"] != "text"]
    keys = check_keys(
        fields,
        ("message", "question", "answer", "response", *scalars(fields, _OF_OURS)),
        images=("image",),
        media=media,
    )
    (field,) = keys.images
    in_row = row_pictures(fields.get(field))
    if not media and not is_empty(fields.get(field)):
        turns = _with_images(turns, media_parts(fields, image_fields=keys.images)["image"], field)
    question = fields.get("question")
    if not (isinstance(question, str) or is_empty(question)):
        raise RowError(f"field 'question' is {shown(question)}, expected text")
    return Draft(
        turns=turns,
        responses=demonstrated,
        label=label,
        meta={
            "question": unicode_text(question, "question") if isinstance(question, str) else "",
            **scalar_meta(fields, _OF_OURS),
        },
        in_row=in_row if media else (),
        unread=((*(key for key in keys.unread if key != field or not in_row), *_unread(fields)),),
    )


def _unread(row: dict[str, Any]) -> Iterator[str]:
    for turn in _chat(row):
        yield from unread_inside(turn, ("role", "content"), where="message")
        for part in turn["content"] if isinstance(turn["content"], list) else ():
            yield from unread_inside(part, ("type", part["type"]), where="message")


def _turn(turn: Any) -> Turn:
    role = turn.get("role") if isinstance(turn, dict) else None
    if role not in _ROLES:
        raise RowError(f"field 'message' has a turn with role {shown(role)}, expected {', '.join(_ROLES)}")
    content = turn.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        raise RowError(f"field 'message' has a turn with content {shown(content)}, expected text or parts")
    return {"role": role, "content": [_part(part) for part in content]}


def _part(part: Any) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _PARTS:
        raise RowError(f"field 'message' has a part of type {shown(kind)}, expected {', '.join(_PARTS)}")
    value = part.get(kind)
    if not isinstance(value, str):
        raise RowError(f"field 'message' has a part whose {kind!r} is {shown(value)}, expected text")
    return {"type": kind, kind: unicode_text(value, "message") if kind == "text" else value}


def _with_images(turns: tuple[Turn, ...], images: list[dict[str, str]], field: str) -> tuple[Turn, ...]:
    """Put the row's images where the user's words have ``<image>``, else before those of its first user turn."""
    asked = words(turn for turn in turns if turn["role"] == "user")
    if num_places := len(_PLACE.findall(asked)):
        if num_places != len(images):
            raise RowError(f"the prompt has {num_places} '<image>' placeholders, the row has {len(images)} images")
        waiting = iter(images)
        return tuple(_placed(turn, waiting) if turn["role"] == "user" else turn for turn in turns)
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), None)
    if first is None:
        raise RowError(f"field 'message' has no user turn that could hold the images of field {field!r}")
    turn = {"role": "user", "content": [*images, *turns[first]["content"]]}
    return (*turns[:first], turn, *turns[first + 1 :])


def _placed(turn: Turn, images: Iterator[dict[str, str]]) -> Turn:
    content: list[dict[str, str]] = []
    for part in turn["content"]:
        before, *others = _PLACE.split(part["text"])
        content += [{"type": "text", "text": before}] if before else []
        for text in others:
            content += [next(images), *([{"type": "text", "text": text}] if text else [])]
    return {"role": turn["role"], "content": content}


def _chat(row: dict[str, Any]) -> list[Any]:
    message = json_field(row, "message")
    if not isinstance(message, list) or not message:
        raise RowError(f"field 'message' is {shown(message)}, expected a list of chat turns")
    return message


def _label(row: dict[str, Any]) -> str:
    answer = row.get("answer")
    only = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    match = _ANSWER.fullmatch(str(only)) if isinstance(only, (str, int)) else None
    if match is None:
        raise RowError(f"field 'answer' is {shown(only)}, expected 1 or 2")
    return match[1] or match[2]
