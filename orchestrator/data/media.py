"""The media of a row: where they stand in its text, and the files behind their names.

A text has ``<image>`` and ``<video>`` in user turns. One image or video and no placeholder: it comes first. Otherwise
there is one placeholder for each. A line break beside a placeholder belongs to it. Every name is confined to the media
root, every file probed once.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from algorithms.records import MediaRef
from orchestrator.data.keys import is_empty
from orchestrator.data.rows import RowError, RowPicture, shown
from orchestrator.data.videos import video_frames
from workers.multimodal.media import FrameOrder, MediaError, probe_image, resolve_media, sample_frames, shown_name

Turn = dict[str, Any]
"""``{"role", "content": parts}``; a part is ``{"type": kind, kind: text or name}``, kind one of text, image, video."""
IMAGE_FIELDS = ("image", "images")
VIDEO_FIELDS = ("video", "videos")
_PLACEHOLDER = re.compile(r"<(image|video)>")
_CUT = re.compile(r"\n?<(image|video)>\n?")
_PROBE_THREADS = 8
_REMEMBERED_FILES = 65_536


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


@dataclass(frozen=True, slots=True)
class Source:
    """An image that a row names."""

    shown: str
    """The row's own words for it, e.g. ``image 'a.png'``."""
    path: Path


class MediaFinder:
    """Finds the files behind names, opening none of them but videos, whose frames become files."""

    def __init__(self, root: Path, video_frames: int, *, pictures: Path) -> None:
        """
        Args:
            pictures: Folder for the frames of video files.
        """
        self._root, self._video_frames, self._pictures = root, video_frames, pictures
        self._decoded: dict[Path, list[Path] | MediaError] = {}

    def resolve(
        self, turns: Sequence[Turn], *, frame_order: FrameOrder = "natural", in_row: Sequence[str] = ()
    ) -> tuple[tuple[Turn, ...], tuple[Source, ...]]:
        """Turns as a model sees them, and their images in order; a video is that many images, in ``frame_order``.

        Args:
            in_row: Pictures of the row itself: where they are as many as its images, each stands for one that is not
                found by its name.
        Raises:
            RowError: a name that is no file under the root.
        """
        sources: list[Source] = []
        resolved = []
        num_images = sum(part["type"] == "image" for turn in turns for part in turn["content"])
        others = iter(in_row if len(in_row) == num_images else [None] * num_images)
        for turn in turns:
            content = [p for part in turn["content"] for p in self._part(part, sources, frame_order, others)]
            resolved.append({"role": turn["role"], "content": content})
        return tuple(resolved), tuple(sources)

    def _part(
        self, part: dict[str, str], sources: list[Source], order: FrameOrder, in_row: Iterator[str | None]
    ) -> list[dict[str, str]]:
        kind = part["type"]
        if kind == "text":
            return [part]
        found = self._image(part[kind], next(in_row)) if kind == "image" else self._video(part[kind], order)
        sources.extend(found)
        return [{"type": "image"} for _ in found]

    def _image(self, name: str, in_row: str | None) -> list[Source]:
        if isinstance(name, RowPicture):
            return [Source("image in the row", Path(name))]
        shown = f"image {shown_name(name)}"
        try:
            return [Source(shown, resolve_media(name, root=self._root))]
        except MediaError as error:
            if in_row is not None:
                return [Source(f"{shown}, in the row,", Path(in_row))]
            raise RowError(f"{shown} {error.problem}") from error

    def _video(self, name: str, order: FrameOrder) -> list[Source]:
        shown = "video in the row" if isinstance(name, RowPicture) else f"video {shown_name(name)}"
        try:
            folder = Path(name) if isinstance(name, RowPicture) else resolve_media(name, root=self._root)
            if folder.is_file():
                return [Source(f"{shown} frame {n}", f) for n, f in enumerate(self._frames(folder), start=1)]
            frames = sample_frames(folder, num_frames=self._video_frames, order=order)
        except MediaError as error:
            raise RowError(f"{shown} {error.problem}") from error
        try:  # once more for each frame, which may be a link out of the root
            return [
                Source(f"{shown} frame {shown_name(f.name)}", resolve_media(str(f), root=self._root)) for f in frames
            ]
        except MediaError as error:
            raise RowError(f"{shown} frame {shown_name(Path(error.args[0]).name)} {error.problem}") from error

    def _frames(self, file: Path) -> list[Path]:
        """Of a video file; those of one that several rows name are decoded once."""
        if file not in self._decoded:
            try:
                found = video_frames(file, num_frames=self._video_frames, folder=self._pictures)
            except MediaError as error:
                found = error
            self._decoded[file] = found
        frames = self._decoded[file]
        if isinstance(frames, MediaError):
            raise frames
        return frames


def probe_all(paths: Iterable[Path], *, max_pixels: int | None) -> dict[Path, MediaRef | MediaError]:
    """Probe every different file once; what is wrong with one is its value."""

    def probe(path: Path) -> MediaRef | MediaError:
        try:
            return probe_image(path, max_pixels=max_pixels)
        except MediaError as error:
            return error

    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(_PROBE_THREADS) as threads:
        return dict(zip(unique, threads.map(probe, unique), strict=True))


@dataclass(slots=True)
class Probed:
    """What probing said of the files seen last: images that many rows share are opened once, as long as their rows are
    not too far apart."""

    max_pixels: int | None
    known: OrderedDict[Path, tuple[MediaRef, int] | MediaError] = field(default_factory=OrderedDict)

    def probe(self, paths: list[Path]) -> None:
        """Open each that is not known; those of the chunk before last are forgotten where they are very many."""
        while len(self.known) > _REMEMBERED_FILES:
            self.known.popitem(last=False)
        for path, one in probe_all((p for p in paths if p not in self.known), max_pixels=self.max_pixels).items():
            self.known[path] = one if isinstance(one, MediaError) else (one, path.stat().st_size)
