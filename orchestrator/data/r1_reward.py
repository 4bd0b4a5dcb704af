"""Reader of the R1-Reward-RL format: pairwise judgements over images, JSON or JSONL.

A row is ``{"message": "<JSON of a chat list>", "question": str, "answer": ["<answer>2</answer>"]}``; content parts
are ``text``, ``image`` (a path) and ``video`` (a folder of frames, used as that many images). ``image`` beside the
message stands for images where the message has none: where the user's words have ``<image>``, else before them all.
``response`` is an optional demonstration for ``sft``, which takes a last turn of the assistant for one where there is
no ``response``. To everybody else such a row is a bad one: its prompt would hold its answer.

Rows are checked first, then every image they name is probed, once each.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithms.records import MediaRef
from orchestrator.data.dataset import BadRow, Dataset, row_uid
from orchestrator.data.fields import RowError, shown, unicode_text
from orchestrator.data.json_rows import JSON_ERRORS, JsonRow, decoded, json_problem, read_json_rows
from orchestrator.data.keys import Notes, check_keys, is_empty, unread_inside
from orchestrator.data.media_sources import MediaFinder, Source, Turn, probe_all
from orchestrator.data.turns import check_prompt, refuse_told_verdict, words
from workers.multimodal.media import MediaError
from workers.types import Prompt

_ANSWER = re.compile(r"\s*([12])\s*|\s*<answer>\s*([12])\s*</answer>\s*")
_PLACE = re.compile(r"\n?<image>\n?")
_ROLES = ("system", "user", "assistant")
_PARTS = ("text", "image", "video")


@dataclass(frozen=True, slots=True, kw_only=True)
class R1Row:
    """One row, checked as far as it goes without opening an image."""

    turns: tuple[Turn, ...]
    """Parts still name their media."""
    label: str
    target: str | None
    question: str
    unread: tuple[str, ...]
    """Keys that nobody reads; see ``orchestrator.data.keys``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A row that is fine as far as its images are."""

    row: int
    parsed: R1Row
    messages: tuple[Turn, ...]
    sources: tuple[Source, ...]


def read_r1_reward(
    path: Path, *, media_root: Path, max_pixels: int | None, video_frames: int, demonstrations: bool = False
) -> Dataset:
    """Read and check a whole file; every bad row is listed with its number and reason.

    Args:
        demonstrations: See ``parse_r1_row``.
    Raises:
        RefusedInput: the file is missing, or is not JSON at all.
    """
    finder = MediaFinder(media_root, video_frames)
    rows = read_json_rows(path)
    drafts = [row if isinstance(row, BadRow) else _attempt(finder, row, demonstrations) for row in rows]
    sources = (source for draft in drafts if isinstance(draft, _Draft) for source in draft.sources)
    probed = probe_all((source.path for source in sources), max_pixels=max_pixels)
    results = [draft if isinstance(draft, BadRow) else _finish(draft, path, probed) for draft in drafts]
    prompts = tuple(result for result in results if isinstance(result, Prompt))
    return Dataset(
        prompts=prompts,
        bad_rows=tuple(result for result in results if isinstance(result, BadRow)),
        fingerprint=_fingerprint(prompts),
        notes=_notes(drafts, results),
    )


def parse_r1_row(row: Any, *, demonstrations: bool = False) -> R1Row:
    """Check one decoded row.

    Args:
        demonstrations: Take the assistant's last turn for the demonstration where the row has no other.
    Raises:
        RowError: naming field and value.
    """
    if not isinstance(row, dict):
        raise RowError(f"the row is {shown(row)}, expected an object")
    turns, target, label = tuple(_turn(turn) for turn in _chat(row)), _target(row), _label(row)
    if demonstrations and target is None and turns[-1]["role"] == "assistant":
        turns, target = turns[:-1], _demonstrated(turns[-1])
    media = [part[part["type"]] for turn in turns for part in turn["content"] if part["type"] != "text"]
    keys = check_keys(row, ("message", "question", "answer", "response"), images=("image",), media=media)
    (field,) = keys.images
    if not media and not is_empty(row.get(field)):
        turns = _with_images(turns, row[field], field)
    check_prompt(turns)
    refuse_told_verdict(turns, label)
    question = row.get("question")
    return R1Row(
        turns=turns,
        label=label,
        target=target,
        question=unicode_text(question, "question") if isinstance(question, str) else "",
        unread=(*keys.unread, *_unread(row)),
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


def _with_images(turns: tuple[Turn, ...], names: Any, field: str) -> tuple[Turn, ...]:
    """Put the row's images where the user's words have ``<image>``, else before those of its first user turn."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise RowError(f"field {field!r} is {shown(names)}, expected a path or a list of paths")
    asked = words(turn for turn in turns if turn["role"] == "user")
    if num_places := len(_PLACE.findall(asked)):
        if num_places != len(names):
            raise RowError(f"the prompt has {num_places} '<image>' placeholders, the row has {len(names)} images")
        waiting = iter(names)
        return tuple(_placed(turn, waiting) if turn["role"] == "user" else turn for turn in turns)
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), None)
    if first is None:
        raise RowError(f"field 'message' has no user turn that could hold the images of field {field!r}")
    images = [{"type": "image", "image": name} for name in names]
    turn = {"role": "user", "content": [*images, *turns[first]["content"]]}
    return (*turns[:first], turn, *turns[first + 1 :])


def _placed(turn: Turn, names: Iterator[str]) -> Turn:
    content: list[dict[str, str]] = []
    for part in turn["content"]:
        before, *others = _PLACE.split(part["text"])
        content += [{"type": "text", "text": before}] if before else []
        for text in others:
            content += [{"type": "image", "image": next(names)}, *([{"type": "text", "text": text}] if text else [])]
    return {"role": turn["role"], "content": content}


def _attempt(finder: MediaFinder, row: JsonRow, demonstrations: bool) -> _Draft | BadRow:
    try:
        parsed = parse_r1_row(row.value, demonstrations=demonstrations)
        messages, sources = finder.resolve(parsed.turns)
    except RowError as error:
        return BadRow(row.number, str(error))
    return _Draft(row=row.number, parsed=parsed, messages=messages, sources=sources)


def _finish(draft: _Draft, path: Path, probed: dict[Path, MediaRef | MediaError]) -> Prompt | BadRow:
    media: list[MediaRef] = []
    for source in draft.sources:
        image = probed[source.path]
        if isinstance(image, MediaError):
            return BadRow(draft.row, f"{source.shown} {image.problem}")
        media.append(image)
    return Prompt(
        uid=row_uid(path, draft.row),
        messages=draft.messages,
        media=tuple(media),
        label=draft.parsed.label,
        target=draft.parsed.target,
        meta={"question": draft.parsed.question},
    )


def _notes(drafts: list[_Draft | BadRow], results: list[Prompt | BadRow]) -> Notes:
    notes = Notes()
    for draft, result in zip(drafts, results, strict=True):
        if isinstance(draft, _Draft) and isinstance(result, Prompt):
            notes.add({draft.row: draft.parsed.unread}, has_images=bool(result.media))
    return notes


def _chat(row: dict[str, Any]) -> list[Any]:
    message = row.get("message")
    if isinstance(message, str):
        try:
            message = decoded(message)
        except JSON_ERRORS as error:
            raise RowError(f"field 'message' is not valid JSON: {json_problem(error)}") from error
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


def _target(row: dict[str, Any]) -> str | None:
    target = row.get("response")
    if target is None:
        return None
    if not isinstance(target, str) or not target.strip():
        raise RowError(f"field 'response' is {shown(target)}, expected text")
    return unicode_text(target, "response")


def _demonstrated(turn: Turn) -> str:
    text = words([turn])
    if not text.strip() or any(part["type"] != "text" for part in turn["content"]):
        raise RowError(f"the assistant's last turn is {shown(text)}, expected text alone, which sft could learn")
    return text


def _fingerprint(prompts: tuple[Prompt, ...]) -> str:
    digest = hashlib.sha256()
    for p in prompts:
        row = [p.uid, p.messages, [m.sha256 for m in p.media], p.label, p.target]
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()
