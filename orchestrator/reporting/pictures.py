"""Images of a rollout as the model saw them: decoded and written anew into the page, so only pictures get in."""

import base64
import hashlib
import io
from pathlib import Path

from orchestrator.reporting.markup import Html, element, join
from workers.multimodal.pictures import PictureError, decode

_SIDE = 224
"""Longest edge on the page, pixels; a smaller image keeps its size."""
_MOST_BYTES = 1 << 28
_MOST_SHOWN = 4


def pictures(paths: tuple[str, ...], digests: tuple[str, ...]) -> Html:
    """The first few images of one prompt; one that cannot be shown is a sentence that says why.

    Args:
        digests: SHA-256 of each file as the run saw it.
    """
    shown = [_picture(Path(path), digest) for path, digest in list(zip(paths, digests, strict=True))[:_MOST_SHOWN]]
    if len(paths) > _MOST_SHOWN:
        shown.append(element("span", {"class": "missing"}, f"and {len(paths) - _MOST_SHOWN} more"))
    return join(shown)


def _picture(path: Path, digest: str) -> Html:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return _missing(path, "is too large to show")
        content = path.read_bytes()
    except OSError as error:
        return _missing(path, f"cannot be read: {error.strerror}")
    if hashlib.sha256(content).hexdigest() != digest:
        return _missing(path, "has changed since the run")
    try:
        png = _as_png(content)
    except PictureError as error:
        return _missing(path, str(error))
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return element("img", {"src": source, "alt": path.name, "title": path.name})


def _as_png(content: bytes) -> bytes:
    small = decode(content)
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return buffer.getvalue()


def _missing(path: Path, reason: str) -> Html:
    return element("span", {"class": "missing"}, f"{path.name} {reason}")
