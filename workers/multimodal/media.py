"""Images on disk: confined to a root, bounded before decoding, named by the digest of their bytes."""

import hashlib
import io
import re
import struct
import zlib
from operator import attrgetter
from pathlib import Path
from typing import Literal

from PIL import Image

from workers.types import MediaRef

FrameOrder = Literal["natural", "name"]
"""``natural``: frame 2 before frame 10; ``name``: plain order of the names, which zero-padded numbers need."""
_FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# Pillow opens dozens of formats, some through other programs (EPS starts Ghostscript): untrusted files get only these.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
# What Pillow's decoders are known to raise on damaged files.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, EOFError, struct.error, zlib.error,
)  # fmt: skip


class MediaError(ValueError):
    """A file that cannot be used; reads as one sentence: ``'x.png' is not a readable image``."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)  # both, so that the error survives the way between processes
        self.problem = problem
        """The sentence without its subject, for whoever knows the file by another name."""

    def __str__(self) -> str:
        return f"{self.args[0]!r} {self.problem}"


def resolve_media(name: str, *, root: Path) -> Path:
    """Absolute path of ``name`` (relative to ``root``, or absolute) inside ``root``, symbolic links followed.

    Raises:
        MediaError: the path leaves ``root``, does not exist, or is no path at all.
    """
    try:
        base = root.resolve()
        path = (base / name).resolve()
        if not path.is_relative_to(base):
            raise MediaError(name, f"is outside the media root {str(root)!r}")
        if not path.exists():
            raise MediaError(name, f"is not found under the media root {str(root)!r}")
    except MediaError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # too long or unreadable, a null byte, a loop of links
        raise MediaError(name, "is not a usable path") from error
    return path


def probe_image(path: Path, *, max_pixels: int) -> MediaRef:
    """Digest and size of an image that is proven to decode.

    Raises:
        MediaError: not a file, not an image, damaged, or more than ``max_pixels`` (checked before decoding).
    """
    data = _read(path)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height <= max_pixels:
                image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(path.name, f"is refused before decoding: {error}") from error
    except _DECODE_ERRORS as error:
        raise MediaError(path.name, "is not a readable image") from error
    if width * height > max_pixels:
        raise MediaError(
            path.name, f"has {width} x {height} = {width * height} pixels, more than max_pixels = {max_pixels}"
        )
    return MediaRef(sha256=hashlib.sha256(data).hexdigest(), path=str(path), width=width, height=height)


def load_image(ref: MediaRef) -> Image.Image:
    """Decode a probed image to RGB.

    Raises:
        MediaError: the file has changed since it was probed, or is gone.
    """
    data = _read(Path(ref.path))
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise MediaError(ref.path, "has changed since the data was read")
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return image.convert("RGB")


def pixel_bytes(image: Image.Image) -> int:
    """Memory of a decoded image: 3 bytes a pixel."""
    return 3 * image.width * image.height


def sample_frames(folder: Path, *, num_frames: int, order: FrameOrder = "natural") -> list[Path]:
    """Up to ``num_frames`` frames of a folder, evenly spread.

    The paths are entries of ``folder``: a link among them is not followed, so not yet confined to any root.

    Raises:
        MediaError: not a folder, or a folder without frames.
    """
    if not folder.is_dir():
        raise MediaError(folder.name, "is not a folder of frames")
    found = [f for f in folder.iterdir() if f.suffix.lower() in _FRAME_SUFFIXES]
    frames = sorted(found, key=_natural_key if order == "natural" else attrgetter("name"))
    if not frames:
        raise MediaError(folder.name, f"holds no frames ({', '.join(_FRAME_SUFFIXES)})")
    if len(frames) <= num_frames:
        return frames
    if num_frames == 1:
        return [frames[0]]
    return [frames[round(i * (len(frames) - 1) / (num_frames - 1))] for i in range(num_frames)]


def _natural_key(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p]


def _read(path: Path) -> bytes:
    if not path.is_file():  # a pipe would be waited for
        raise MediaError(path.name, "is not a file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise MediaError(path.name, f"cannot be read ({error.strerror})") from error
