"""Video files become frames: evenly spread, decoded once from end to end, each a PNG file named by its content.

A file is known by its first bytes, so that FFmpeg is never asked about a playlist, which may name other files.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from orchestrator.data.content_files import written
from workers.multimodal.media import MediaError
from workers.multimodal.pictures import MOST_PIXELS

if TYPE_CHECKING:
    import cv2

MOST_FRAMES = 100_000
"""Of a video, an hour of thirty a second: all of them are decoded to find those that are wanted."""
_HEAD_BYTES = 12
_COUNTED = ("MP4", "AVI")
"""Kinds whose files say how many frames they have."""
_WHOLE = 0.9
"""Share of these that must be there: cuts may leave some out, a broken download leaves out more."""
VIDEOS = "MP4, MOV, WebM, MKV, AVI, GIF"


def video_kind(head: bytes) -> str | None:
    """What the first bytes of a file say; None where it is no video that is read."""
    if head[4:8] == b"ftyp":
        return "MP4"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "WEBM"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "AVI"
    return "GIF" if head.startswith(b"GIF8") else None


def video_frames(path: Path, *, num_frames: int, folder: Path) -> list[Path]:
    """Files of up to ``num_frames`` frames, the first and the last among them.

    Args:
        folder: Where they are written.
    Raises:
        MediaError: no video of a kind that is read, broken, or with frames too large or too many.
        RefusedInput: the folder cannot be written.
    """
    try:
        with path.open("rb") as file:
            kind = video_kind(file.read(_HEAD_BYTES))
    except OSError as error:
        raise MediaError(path.name, f"cannot be read ({error.strerror})") from error
    if kind is None:
        raise MediaError(path.name, f"is no folder of frames and no video of a kind that is read: {VIDEOS}")
    found = _length(path, kind)
    last = min(num_frames, found) - 1
    wanted = [round(i * (found - 1) / last) if last else 0 for i in range(last + 1)]
    return [written(folder, frame, suffix="png") for frame in _decoded(path, wanted)]


def _length(path: Path, kind: str) -> int:
    """Frames that decode: what a file says of itself is no more than a bound from below for what is there."""
    import cv2  # deferred: few runs have videos

    video = _opened(path)
    width, height, told = (
        int(video.get(name)) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT)
    )
    if width * height > MOST_PIXELS:
        raise MediaError(path.name, f"has frames of {width} x {height} pixels, more than {MOST_PIXELS}")
    found = 0
    while found <= MOST_FRAMES and video.grab():
        found += 1
    if found > MOST_FRAMES:
        raise MediaError(path.name, f"has more than {MOST_FRAMES} frames")
    if not found:
        raise MediaError(path.name, "is a video that is truncated or damaged: no frame decodes")
    if kind in _COUNTED and found < _WHOLE * told:
        raise MediaError(path.name, f"is a video that is truncated or damaged: {found} of {told} frames decode")
    return found


def _decoded(path: Path, wanted: list[int]) -> list[bytes]:
    import cv2

    video, at, frames = _opened(path), -1, []
    for index in wanted:
        while at < index and video.grab():
            at += 1
        fine, frame = video.retrieve()
        if at != index or not fine:
            raise MediaError(path.name, f"is a video that is truncated or damaged: frame {index + 1} does not decode")
        out = io.BytesIO()
        Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).save(out, "PNG")
        frames.append(out.getvalue())
    return frames


def _opened(path: Path) -> "cv2.VideoCapture":
    import cv2

    try:
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    except cv2.error as error:
        raise MediaError(path.name, "is a video that is truncated or damaged") from error
    if not video.isOpened():
        raise MediaError(path.name, "is a video that is truncated or damaged: it cannot be opened")
    return video
