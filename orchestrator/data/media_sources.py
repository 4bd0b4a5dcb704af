"""From the names in a row to files: every name confined to the media root, every file probed once."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithms.records import MediaRef
from orchestrator.data.fields import RowError
from workers.multimodal.media import FrameOrder, MediaError, probe_image, resolve_media, sample_frames, shown_name

Turn = dict[str, Any]
"""``{"role", "content": parts}``; a part is ``{"type": kind, kind: text or name}``, kind one of text, image, video."""
_PROBE_THREADS = 8


@dataclass(frozen=True, slots=True)
class Source:
    """An image that a row names."""

    shown: str
    """The row's own words for it, e.g. ``image 'a.png'``."""
    path: Path


class MediaFinder:
    """Finds the files behind names, opening none of them."""

    def __init__(self, root: Path, video_frames: int) -> None:
        self._root, self._video_frames = root, video_frames

    def resolve(
        self, turns: Iterable[Turn], *, frame_order: FrameOrder = "natural"
    ) -> tuple[tuple[Turn, ...], tuple[Source, ...]]:
        """Turns as a model sees them, and their images in order; a video is that many images, in ``frame_order``.

        Raises:
            RowError: a name that is no file under the root.
        """
        sources: list[Source] = []
        resolved = []
        for turn in turns:
            content = [p for part in turn["content"] for p in self._part(part, sources, frame_order)]
            resolved.append({"role": turn["role"], "content": content})
        return tuple(resolved), tuple(sources)

    def _part(self, part: dict[str, str], sources: list[Source], order: FrameOrder) -> list[dict[str, str]]:
        kind = part["type"]
        if kind == "text":
            return [part]
        found = self._image(part[kind]) if kind == "image" else self._video(part[kind], order)
        sources.extend(found)
        return [{"type": "image"} for _ in found]

    def _image(self, name: str) -> list[Source]:
        shown = f"image {shown_name(name)}"
        try:
            return [Source(shown, resolve_media(name, root=self._root))]
        except MediaError as error:
            raise RowError(f"{shown} {error.problem}") from error

    def _video(self, name: str, order: FrameOrder) -> list[Source]:
        shown = f"video {shown_name(name)}"
        try:
            folder = resolve_media(name, root=self._root)
            frames = sample_frames(folder, num_frames=self._video_frames, order=order)
        except MediaError as error:
            raise RowError(f"{shown} {error.problem}") from error
        try:  # once more for each frame, which may be a link out of the root
            return [
                Source(f"{shown} frame {shown_name(f.name)}", resolve_media(str(f), root=self._root)) for f in frames
            ]
        except MediaError as error:
            raise RowError(f"{shown} frame {shown_name(Path(error.args[0]).name)} {error.problem}") from error


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
