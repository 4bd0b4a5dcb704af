"""Small pictures of the files that a run saw, for people: pages and trackers."""

import hashlib
from pathlib import Path

from PIL import Image

from workers.multimodal.pictures import PictureError, decode

SIDE = 224
"""Longest edge, pixels; a smaller image keeps its size."""
_MOST_BYTES = 1 << 28


def thumbnail(path: Path, digest: str) -> Image.Image:
    """The picture as the model saw it, made small.

    Args:
        digest: SHA-256 of the file as the run saw it.
    Raises:
        PictureError: why it cannot be shown, as a sentence without its subject.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise PictureError("is too large to show")
        content = path.read_bytes()
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise PictureError("has changed since the run")
    small = decode(content)
    small.thumbnail((SIDE, SIDE))
    return small
