"""The pictures of one page: each is read, decoded and written into it once, within bounds of time and size.

They are decoded and written anew, so that only pictures get in.
"""

import base64
import io
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from orchestrator.reporting.markup import Html, element, join
from orchestrator.run.thumbnails import thumbnail
from workers.multimodal.pictures import PictureError

_MOST_SHOWN = 4
_MOST_CHARS = 9 << 20
"""Of all pictures of a page, as text."""
_LONGEST_S = 100.0
_MOST_EXACT_BYTES = 8 << 10
"""Up to here a picture is written without loss."""


class Gallery:
    """What is on the page already, and what could not be put there."""

    def __init__(self, *, longest_s: float = _LONGEST_S, most_chars: int = _MOST_CHARS) -> None:
        self._until = time.monotonic() + longest_s
        self._room = most_chars
        self._names: dict[tuple[str, str], str] = {}
        self._problems: dict[tuple[str, str], str] = {}

    @property
    def left_out(self) -> list[str]:
        """Each picture that is not shown, with the reason; of very many the first."""
        told = [f"{Path(path).name} {reason}." for (path, _), reason in self._problems.items()]
        return [*told[:3], f"{len(told) - 3} more pictures are not shown."] if len(told) > 3 else told

    def pictures(self, media: Iterable[tuple[str, str]]) -> Html:
        """The first few images of one prompt; one that cannot be shown is a sentence that says why.

        Args:
            media: Path of each, and SHA-256 of the file as the run saw it.
        """
        found = list(media)
        return join([*(self._picture(*one) for one in found[:_MOST_SHOWN]), *_more(found)])

    def _picture(self, path: str, digest: str) -> Html:
        key, name = (path, digest), Path(path).name
        told = {"alt": name, "title": name, "decoding": "async"}
        if key in self._names:  # the page's script gives it the source of the first
            return element("img", {**told, "data-same": self._names[key]})
        if key not in self._problems:
            try:
                source = self._source(Path(path), digest)
            except PictureError as error:
                self._problems[key] = str(error)
            else:
                self._names[key] = str(len(self._names))
                return element("img", {"src": source, **told, "data-picture": self._names[key]})
        return element("span", {"class": "missing"}, f"{name} {self._problems[key]}")

    def _source(self, path: Path, digest: str) -> str:
        if time.monotonic() > self._until:
            raise PictureError("is left out: the pictures of the page took too long")
        if self._room <= 0:
            raise PictureError("is left out: the page has all the pictures that it can hold")
        kind, content = _written(thumbnail(path, digest))
        source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        self._room -= len(source)
        return source


def pictures(media: Iterable[tuple[str, str]]) -> Html:
    """Those of one prompt for a page without a script: each in full wherever it stands; see ``Gallery.pictures``."""
    found = list(media)
    shown = [Gallery().pictures([one]) for one in found[:_MOST_SHOWN]]
    return join([*shown, *_more(found)])


def _more(found: Sequence[tuple[str, str]]) -> list[Html]:
    left_out = len(found) - _MOST_SHOWN
    return [element("span", {"class": "missing"}, f"and {left_out} more")] if left_out > 0 else []


def _written(picture: Image.Image) -> tuple[str, bytes]:
    """Its format and bytes."""
    exact, small = io.BytesIO(), io.BytesIO()
    picture.save(exact, format="PNG")
    if exact.tell() <= _MOST_EXACT_BYTES:
        return "png", exact.getvalue()
    picture.save(small, format="WEBP", quality=80)
    return "webp", small.getvalue()
