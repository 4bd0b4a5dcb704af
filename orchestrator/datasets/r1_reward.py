"""Reader of the R1-Reward-RL format: pairwise judgements over images, JSON or JSONL.

A row is ``{"message": "<JSON of a chat list>", "question": str, "answer": ["<answer>2</answer>"]}``; content parts
are ``text``, ``image`` (a path) and ``video`` (a folder of frames, used as that many images). ``image`` beside the
message stands for an image part where the message has none; ``response`` is an optional demonstration for ``sft``.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orchestrator.datasets.dataset import BadRow, Dataset, RowError
from orchestrator.errors import RefusedInput
from workers.multimodal.media import MediaError, probe_image, resolve_media, sample_frames
from workers.types import MediaRef, Prompt

_ANSWER = re.compile(r"\s*(?:<answer>)?\s*([^<]*?)\s*(?:</answer>)?\s*", re.DOTALL)
_ROLES = ("system", "user", "assistant")
_PROBE_THREADS = 8


def read_r1_reward(path: Path, *, media_root: Path, max_pixels: int, video_frames: int) -> Dataset:
    """Read and check a whole file; every bad row is listed with its number and reason.

    Raises:
        RefusedInput: the file is missing, or is not JSON at all.
    """
    rows = list(_rows(path))
    reader = _RowReader(media_root, max_pixels, video_frames)
    with ThreadPoolExecutor(_PROBE_THREADS) as threads:
        results = list(threads.map(lambda item: _attempt(reader, path.stem, *item), rows))
    prompts = tuple(r for r in results if isinstance(r, Prompt))
    return Dataset(
        prompts=prompts,
        bad_rows=tuple(r for r in results if isinstance(r, BadRow)),
        fingerprint=_fingerprint(prompts),
    )


class _RowReader:
    """Turns one decoded row into a prompt; each image file is probed once."""

    def __init__(self, media_root: Path, max_pixels: int, video_frames: int) -> None:
        self._root, self._max_pixels, self._video_frames = media_root, max_pixels, video_frames
        self._probed: dict[Path, MediaRef] = {}

    def prompt(self, uid: str, row: Any) -> Prompt:
        if not isinstance(row, dict):
            raise RowError(f"the row is {type(row).__name__}, expected an object")
        media: list[MediaRef] = []
        messages = tuple(self._turn(turn, media) for turn in _chat(row))
        if "image" in row and not media:
            messages = self._prepend_images(messages, row["image"], media)
        target = row.get("response")
        if target is not None and not (isinstance(target, str) and target.strip()):
            raise RowError("field 'response' must be text that is not empty")
        return Prompt(
            uid=uid, messages=messages, media=tuple(media), label=_label(row.get("answer")), target=target,
            meta={"question": str(row.get("question", ""))},
        )  # fmt: skip

    def _turn(self, turn: Any, media: list[MediaRef]) -> dict[str, Any]:
        if not isinstance(turn, dict) or turn.get("role") not in _ROLES:
            raise RowError(f"field 'message' has a turn without a role out of {', '.join(_ROLES)}")
        content = turn.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list) or not content:
            raise RowError("field 'message' has a turn whose 'content' is neither text nor a list of parts")
        return {"role": turn["role"], "content": [p for part in content for p in self._part(part, media)]}

    def _part(self, part: Any, media: list[MediaRef]) -> list[dict[str, str]]:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if isinstance(kind, str) else None
        if kind not in ("text", "image", "video") or not isinstance(value, str):
            raise RowError(f"field 'message' has a content part of type {kind!r}; known are text, image, video")
        if kind == "text":
            return [{"type": "text", "text": value}]
        paths = [self._resolve(kind, value)]
        if kind == "video":
            paths = self._frames(value, paths[0])
        media.extend(self._probe(kind, value, path) for path in paths)
        return [{"type": "image"} for _ in paths]

    def _prepend_images(
        self, messages: tuple[dict[str, Any], ...], names: Any, media: list[MediaRef]
    ) -> tuple[dict[str, Any], ...]:
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise RowError("field 'image' must be a path or a list of paths")
        parts = [p for name in names for p in self._part({"type": "image", "image": name}, media)]
        first = next((i for i, turn in enumerate(messages) if turn["role"] == "user"), None)
        if first is None:
            raise RowError("field 'message' has no user turn")
        turn = messages[first]
        with_images = {"role": "user", "content": [*parts, *turn["content"]]}
        return (*messages[:first], with_images, *messages[first + 1 :])

    def _resolve(self, kind: str, name: str) -> Path:
        try:
            return resolve_media(name, root=self._root)
        except MediaError as error:
            raise RowError(f"{kind} {error}") from error

    def _frames(self, name: str, folder: Path) -> list[Path]:
        try:
            return sample_frames(folder, num_frames=self._video_frames)
        except MediaError as error:
            raise RowError(f"video {error}") from error

    def _probe(self, kind: str, name: str, path: Path) -> MediaRef:
        if path not in self._probed:
            try:
                self._probed[path] = probe_image(path, max_pixels=self._max_pixels)
            except MediaError as error:
                raise RowError(f"{kind} {error}") from error
        return self._probed[path]


def _attempt(reader: _RowReader, stem: str, number: int, row: Any) -> Prompt | BadRow:
    if isinstance(row, RowError):
        return BadRow(number, str(row))
    try:
        return reader.prompt(f"{stem}-{number:06d}", row)
    except RowError as error:
        return BadRow(number, str(error))


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield ``(1-based number, decoded row)``; a line that is not JSON becomes a ``RowError``."""
    if not path.is_file():
        raise RefusedInput(f"data.path {str(path)!r} is not a file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RefusedInput(f"data.path {str(path)!r} is not UTF-8 text (byte {error.start})") from error
    if text.lstrip().startswith("["):
        try:
            elements = json.loads(text)
        except json.JSONDecodeError as error:
            raise RefusedInput(
                f"data.path {str(path)!r} is not valid JSON: {error.msg} at line {error.lineno}"
            ) from error
        yield from enumerate(elements, start=1)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                yield number, RowError(f"not valid JSON: {error.msg} at column {error.colno}")


def _chat(row: dict[str, Any]) -> list[Any]:
    message = row.get("message")
    if isinstance(message, str):
        try:
            message = json.loads(message)
        except json.JSONDecodeError as error:
            raise RowError(f"field 'message' is not valid JSON: {error.msg}") from error
    if not isinstance(message, list) or not message:
        raise RowError("field 'message' is missing or not a list of chat turns")
    return message


def _label(answer: Any) -> str:
    values = answer if isinstance(answer, list) else [answer]
    if len(values) != 1 or not isinstance(values[0], (str, int)) or isinstance(values[0], bool):
        raise RowError(f"field 'answer' is {json.dumps(answer)}, expected exactly one of 1 or 2")
    match = _ANSWER.fullmatch(str(values[0]))
    if match is None or match.group(1) not in ("1", "2"):
        raise RowError(f"field 'answer' is {json.dumps(values[0])}, expected 1 or 2")
    return match.group(1)


def _fingerprint(prompts: tuple[Prompt, ...]) -> str:
    digest = hashlib.sha256()
    for p in prompts:
        row = [p.uid, p.messages, [m.sha256 for m in p.media], p.label, p.target]
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()
