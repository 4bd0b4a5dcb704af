"""Images on disk: confined to a root, bounded before decoding, named by the digest of their bytes."""

import hashlib
import os
import re
import urllib.parse
from operator import attrgetter
from pathlib import Path
from typing import Literal

from PIL import Image

from algorithms.records import MediaRef
from workers.given_files import PICTURE, UnusableFile, read_bytes
from workers.multimodal.pictures import PictureError, decode

FrameOrder = Literal["natural", "name"]
"""``natural``: frame 2 before frame 10; ``name``: plain order of the names, which zero-padded numbers need."""
_FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_SHOWN_CHARS, _SHOWN_START = 80, 50
_FILE_SCHEME, _ADDRESS = re.compile(r"file:(//)?", re.IGNORECASE), re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_READ_FROM = "images are read from files under the media root"
_LONGEST_NAME = 255
_BASE64 = re.compile(r"[A-Za-z0-9+/=_\s-]+")
_BASE64_STARTS = ("iVBORw0KGgo", "/9j/4", "R0lGOD", "UklGR", "Qk0")
"""How the first bytes of the formats that are read are spelled."""


def shown_name(name: str) -> str:
    """A name between quotes, on one line and not longer than a line, its middle left out: it may be the whole image."""
    if len(name) <= _SHOWN_CHARS:
        return repr(name)
    return f"{repr(name[:_SHOWN_START])[:-1]} ... {repr(name[_SHOWN_START - _SHOWN_CHARS :])[1:]}"


class MediaError(ValueError):
    """A file that cannot be used; reads as one sentence: ``'x.png' is not a readable image``."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)  # both, so that the error survives the way between processes
        self.problem = problem
        """The sentence without its subject, for whoever knows the file by another name."""

    def __str__(self) -> str:
        return f"{shown_name(self.args[0])} {self.problem}"


def resolve_media(name: str, *, root: Path) -> Path:
    """Absolute path of ``name`` (relative to ``root``, or absolute) inside ``root``, symbolic links followed.

    Args:
        name: A path, or an address that begins with ``file:``.
    Raises:
        MediaError: the path leaves ``root``, does not exist, or is no path at all.
    """
    local = _local_name(name)
    try:
        base = root.resolve()
        path = (base / local).resolve()
        if not path.is_relative_to(base):
            raise MediaError(name, f"is outside the media root {str(root)!r}")
        if not path.exists():
            raise MediaError(name, f"is not found under the media root {str(root)!r}")
    except (OSError, ValueError, RuntimeError) as error:  # too long or unreadable, a null byte, a loop of links
        if _is_base64(name):
            raise MediaError(name, f"is base64 text and no name; {_READ_FROM}") from error
        raise error if isinstance(error, MediaError) else MediaError(name, "is not a usable path") from error
    return path


def _local_name(name: str) -> str:
    """What a name says as a path.

    Raises:
        MediaError: it is an address of another kind, or the bytes of an image written as text.
    """
    scheme = _FILE_SCHEME.match(name)
    if scheme is not None:
        host, slash, path = name[scheme.end() :].partition("/") if scheme[1] else ("", "", name[scheme.end() :])
        if host not in ("", "localhost"):
            raise MediaError(name, f"is a file on another machine, {shown_name(host)}")
        return os.fsdecode(urllib.parse.unquote_to_bytes(f"{slash}{path}"))
    if _ADDRESS.match(name):
        raise MediaError(name, f"is an address; {_READ_FROM}")
    if name[:5].lower() == "data:":
        raise MediaError(name, f"is a data: URI; {_READ_FROM}")
    return name


def _is_base64(name: str) -> bool:
    likely = len(name) > _LONGEST_NAME or (len(name) > _SHOWN_CHARS and name.startswith(_BASE64_STARTS))
    return likely and _BASE64.fullmatch(name) is not None and all(re.search(f"[{a}]", name) for a in ("a-z", "A-Z"))


def probe_image(path: Path, *, max_pixels: int | None = None) -> MediaRef:
    """Digest and size of an image that is proven to decode; the size is that of the picture as everybody sees it.

    Raises:
        MediaError: not a file, not an image, damaged, or more than ``max_pixels`` (checked before decoding).
    """
    data = _read(path)
    image = _decoded(data, path.name, max_pixels)
    return MediaRef(sha256=hashlib.sha256(data).hexdigest(), path=str(path), width=image.width, height=image.height)


def load_image(ref: MediaRef) -> Image.Image:
    """Decode a probed image to RGB, upright and on white.

    Raises:
        MediaError: the file has changed since it was probed, or is gone; or another size was measured.
    """
    data = _read(Path(ref.path))
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise MediaError(ref.path, "has changed since the data was read")
    image = _decoded(data, ref.path, None)
    if image.size != (ref.width, ref.height):  # a store made when orientation was not obeyed
        raise MediaError(
            ref.path,
            f"is {image.width} x {image.height}, but {ref.width} x {ref.height} where it was measured: import it again",
        )
    return image


def _decoded(data: bytes, name: str, max_pixels: int | None) -> Image.Image:
    try:
        return decode(data, max_pixels=max_pixels)
    except PictureError as error:
        raise MediaError(name, str(error)) from error


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
    try:
        return read_bytes(path, most=PICTURE)
    except UnusableFile as error:
        raise MediaError(path.name, str(error)) from error
