"""Small pictures of the files that a run saw, for people: pages and trackers."""

import hashlib
from pathlib import Path

from PIL import Image

from orchestrator.run.plain_files import UnreadableFile, read_plain
from workers.multimodal.pictures import PictureError, decode

SIDE = 224
"""Longest edge, pixels; a smaller image keeps its size."""
_MOST_BYTES = 1 << 28
"""Of a file: it is read whole, to compare its digest."""


def thumbnail(path: Path, digest: str) -> Image.Image:
    """The picture as the model saw it, made small.

    Args:
        digest: SHA-256 of the file as the run saw it.
    Raises:
        PictureError: why it cannot be shown, as a sentence without its subject.
    """
    try:
        content = read_plain(path, most=_MOST_BYTES)
    except UnreadableFile as error:
        raise PictureError(str(error)) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise PictureError("has changed since the run")
    small = decode(content)
    small.thumbnail((SIDE, SIDE))
    return small
