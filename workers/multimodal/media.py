"""Images on disk: confined to a root, bounded before decoding, named by the digest of their bytes."""

import hashlib
import io
import re
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from workers.types import MediaRef

_FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class MediaError(ValueError):
    """An image that cannot be used; the message is one sentence."""


def resolve_media(name: str, *, root: Path) -> Path:
    """Absolute path of ``name`` inside ``root``, symbolic links followed.

    Raises:
        MediaError: the path leaves ``root`` or does not exist.
    """
    base = root.resolve()
    path = (base / name).resolve()
    if not path.is_relative_to(base):
        raise MediaError(f"{name!r} is outside the media root")
    if not path.exists():
        raise MediaError(f"{name!r} does not exist under the media root")
    return path


def probe_image(path: Path, *, max_pixels: int) -> MediaRef:
    """Digest and size of an image that is proven to decode.

    Raises:
        MediaError: not a file, not an image, damaged, or more than ``max_pixels`` (checked before decoding).
    """
    data = _read(path)
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = image.size
            if width * height > max_pixels:
                raise MediaError(f"{path.name!r} has {width} x {height} = {width * height} pixels, limit {max_pixels}")
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError(f"{path.name!r} is not a readable image") from error
    return MediaRef(sha256=hashlib.sha256(data).hexdigest(), path=str(path), width=width, height=height)


def load_image(ref: MediaRef) -> Image.Image:
    """Decode a probed image to RGB.

    Raises:
        MediaError: the file has changed since it was probed.
    """
    data = _read(Path(ref.path))
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise MediaError(f"{ref.path!r} has changed since the dataset was read")
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def sample_frames(folder: Path, *, num_frames: int) -> list[Path]:
    """Up to ``num_frames`` frames of a folder, evenly spread, in natural order (frame 2 before frame 10).

    Raises:
        MediaError: not a folder, or a folder without frames.
    """
    if not folder.is_dir():
        raise MediaError(f"{folder.name!r} is not a folder of frames")
    frames = sorted((f for f in folder.iterdir() if f.suffix.lower() in _FRAME_SUFFIXES), key=_natural_key)
    if not frames:
        raise MediaError(f"{folder.name!r} holds no frames ({', '.join(_FRAME_SUFFIXES)})")
    if len(frames) <= num_frames:
        return frames
    if num_frames == 1:
        return [frames[0]]
    return [frames[round(i * (len(frames) - 1) / (num_frames - 1))] for i in range(num_frames)]


def _natural_key(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts if p]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path.name!r} cannot be read ({error.strerror})") from error
