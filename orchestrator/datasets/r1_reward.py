"""Reader of the R1-Reward-RL format: pairwise judgements over images, JSON or JSONL.

A row is ``{"message": "<JSON of a chat list>", "question": str, "answer": ["<answer>2</answer>"]}``; content parts
are ``text``, ``image`` (a path) and ``video`` (a folder of frames, used as that many images). ``image`` beside the
message stands for images where the message has none; ``response`` is an optional demonstration for ``sft``.

Rows are checked first, then every image they name is probed, once each.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.datasets.dataset import BadRow, Dataset, row_uid
from orchestrator.datasets.json_rows import JSON_ERRORS, JsonRow, json_problem, read_json_rows
from workers.multimodal.media import MediaError, probe_image, resolve_media, sample_frames
from workers.types import MediaRef, Prompt

_ANSWER = re.compile(r"\s*([12])\s*|\s*<answer>\s*([12])\s*</answer>\s*")
_ROLES = ("system", "user", "assistant")
_PARTS = ("text", "image", "video")
_PROBE_THREADS = 8
_SHOWN_CHARS = 80


class _RowError(ValueError):
    """Why a row cannot be used, in one sentence naming field and value."""


@dataclass(frozen=True, slots=True)
class _Source:
    """An image that a row names."""

    shown: str
    """The row's own words for it, e.g. ``image 'a.png'``."""
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A row that is fine as far as its images are."""

    row: int
    messages: tuple[dict[str, Any], ...]
    sources: tuple[_Source, ...]
    label: str
    target: str | None
    question: str


def read_r1_reward(path: Path, *, media_root: Path, max_pixels: int, video_frames: int) -> Dataset:
    """Read and check a whole file; every bad row is listed with its number and reason.

    Raises:
        RefusedInput: the file is missing, or is not JSON at all.
    """
    parser = _RowParser(media_root, video_frames)
    drafts = [row if isinstance(row, BadRow) else _attempt(parser, row) for row in read_json_rows(path)]
    sources = (source for draft in drafts if isinstance(draft, _Draft) for source in draft.sources)
    probed = _probe((source.path for source in sources), max_pixels)
    results = [draft if isinstance(draft, BadRow) else _finish(draft, path, probed) for draft in drafts]
    prompts = tuple(result for result in results if isinstance(result, Prompt))
    return Dataset(
        prompts=prompts,
        bad_rows=tuple(result for result in results if isinstance(result, BadRow)),
        fingerprint=_fingerprint(prompts),
    )


class _RowParser:
    """Turns one decoded row into a draft, opening no image."""

    def __init__(self, media_root: Path, video_frames: int) -> None:
        self._root, self._video_frames = media_root, video_frames

    def draft(self, number: int, row: Any) -> _Draft:
        if not isinstance(row, dict):
            raise _RowError(f"the row is {_shown(row)}, expected an object")
        sources: list[_Source] = []
        messages = tuple(self._turn(turn, sources) for turn in _chat(row))
        if not sources and row.get("image") is not None:
            messages = self._with_images(messages, row["image"], sources)
        question = row.get("question")
        return _Draft(
            row=number,
            messages=messages,
            sources=tuple(sources),
            label=_label(row),
            target=_target(row),
            question=question if isinstance(question, str) else "",
        )

    def _turn(self, turn: Any, sources: list[_Source]) -> dict[str, Any]:
        role = turn.get("role") if isinstance(turn, dict) else None
        if role not in _ROLES:
            raise _RowError(f"field 'message' has a turn with role {_shown(role)}, expected {', '.join(_ROLES)}")
        content = turn.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list) or not content:
            raise _RowError(f"field 'message' has a turn with content {_shown(content)}, expected text or parts")
        return {"role": role, "content": [p for part in content for p in self._part(part, sources)]}

    def _part(self, part: Any, sources: list[_Source]) -> list[dict[str, str]]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PARTS:
            raise _RowError(f"field 'message' has a part of type {_shown(kind)}, expected {', '.join(_PARTS)}")
        value = part.get(kind)
        if not isinstance(value, str):
            raise _RowError(f"field 'message' has a part whose {kind!r} is {_shown(value)}, expected text")
        if kind == "text":
            return [{"type": "text", "text": _unicode(value, "message")}]
        found = self._image(value) if kind == "image" else self._video(value)
        sources.extend(found)
        return [{"type": "image"} for _ in found]

    def _image(self, name: str) -> list[_Source]:
        shown = f"image {name!r}"
        try:
            return [_Source(shown, resolve_media(name, root=self._root))]
        except MediaError as error:
            raise _RowError(f"{shown} {error.problem}") from error

    def _video(self, name: str) -> list[_Source]:
        shown = f"video {name!r}"
        try:
            frames = sample_frames(resolve_media(name, root=self._root), num_frames=self._video_frames)
        except MediaError as error:
            raise _RowError(f"{shown} {error.problem}") from error
        try:  # once more for each frame, which may be a link out of the root
            return [_Source(f"{shown} frame {f.name!r}", resolve_media(str(f), root=self._root)) for f in frames]
        except MediaError as error:
            raise _RowError(f"{shown} frame {Path(error.args[0]).name!r} {error.problem}") from error

    def _with_images(
        self, messages: tuple[dict[str, Any], ...], names: Any, sources: list[_Source]
    ) -> tuple[dict[str, Any], ...]:
        """Put the images of the row's ``image`` field before the text of its first user turn."""
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _RowError(f"field 'image' is {_shown(names)}, expected a path or a list of paths")
        first = next((i for i, turn in enumerate(messages) if turn["role"] == "user"), None)
        if first is None:
            raise _RowError("field 'message' has no user turn that could hold the images of field 'image'")
        parts = [p for name in names for p in self._part({"type": "image", "image": name}, sources)]
        turn = {"role": "user", "content": [*parts, *messages[first]["content"]]}
        return (*messages[:first], turn, *messages[first + 1 :])


def _attempt(parser: _RowParser, row: JsonRow) -> _Draft | BadRow:
    try:
        return parser.draft(row.number, row.value)
    except _RowError as error:
        return BadRow(row.number, str(error))


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
        label=draft.label,
        target=draft.target,
        meta={"question": draft.question},
    )


def _probe(paths: Iterable[Path], max_pixels: int) -> dict[Path, MediaRef | MediaError]:
    def probe(path: Path) -> MediaRef | MediaError:
        try:
            return probe_image(path, max_pixels=max_pixels)
        except MediaError as error:
            return error

    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(_PROBE_THREADS) as threads:
        return dict(zip(unique, threads.map(probe, unique), strict=True))


def _chat(row: dict[str, Any]) -> list[Any]:
    message = row.get("message")
    if isinstance(message, str):
        try:
            message = json.loads(message)
        except JSON_ERRORS as error:
            raise _RowError(f"field 'message' is not valid JSON: {json_problem(error)}") from error
    if not isinstance(message, list) or not message:
        raise _RowError(f"field 'message' is {_shown(message)}, expected a list of chat turns")
    return message


def _label(row: dict[str, Any]) -> str:
    answer = row.get("answer")
    only = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    match = _ANSWER.fullmatch(str(only)) if isinstance(only, (str, int)) else None
    if match is None:
        raise _RowError(f"field 'answer' is {_shown(only)}, expected 1 or 2")
    return match[1] or match[2]


def _target(row: dict[str, Any]) -> str | None:
    target = row.get("response")
    if target is None:
        return None
    if not isinstance(target, str) or not target.strip():
        raise _RowError(f"field 'response' is {_shown(target)}, expected text")
    return _unicode(target, "response")


def _unicode(text: str, field: str) -> str:
    """Return ``text``; half a surrogate pair is valid JSON, but no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _RowError(f"field {field!r} is not valid Unicode at character {error.start + 1}") from error
    return text


def _shown(value: Any) -> str:
    """A value as JSON, on one line and not longer than a line."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]} ..."


def _fingerprint(prompts: tuple[Prompt, ...]) -> str:
    digest = hashlib.sha256()
    for p in prompts:
        row = [p.uid, p.messages, [m.sha256 for m in p.media], p.label, p.target]
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()
