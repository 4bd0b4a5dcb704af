"""What a policy answered to the same few held-out prompts, for the trackers: a person sees it learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from orchestrator.run.thumbnails import thumbnail
from workers.multimodal.pictures import PictureError

COLUMNS = ("prompt", "answer", "label", "right")
_GREY = (238, 238, 238)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSample:
    """A line of the table."""

    media: tuple[tuple[str, str], ...]
    """Path and SHA-256 of each image."""
    prompt: str
    answer: str
    label: str
    right: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """Of ``COLUMNS``; an image that cannot be shown is told in the prompt's."""
        missing = [f"[{Path(path).name} {why}]" for path, why in self._pictures()[1]]
        return " ".join([self.prompt, *missing]), self.answer, self.label, "right" if self.right else "wrong"

    def picture(self) -> Image.Image | None:
        """Its images beside each other; None where there is none to show."""
        found = self._pictures()[0]
        if not found:
            return None
        strip = Image.new("RGB", (sum(p.width for p in found), max(p.height for p in found)), _GREY)
        left = 0
        for one in found:
            strip.paste(one, (left, 0))
            left += one.width
        return strip

    def _pictures(self) -> tuple[list[Image.Image], list[tuple[str, str]]]:
        found: list[Image.Image] = []
        missing: list[tuple[str, str]] = []
        for path, digest in self.media:
            try:
                found.append(thumbnail(Path(path), digest))
            except PictureError as error:
                missing.append((path, str(error)))
        return found, missing


def markdown(rows: Sequence[ShownSample]) -> str:
    """The table as Markdown. What a model writes stands there as text: it makes no cell, line or markup of its own."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_escaped, row.cells))} |" for row in rows)]) + "\n"


def sheet(rows: Sequence[ShownSample]) -> Image.Image | None:
    """The pictures of all rows below each other, in their order; None where no row has one."""
    pictures = [picture for row in rows if (picture := row.picture()) is not None]
    if not pictures:
        return None
    whole = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), _GREY)
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole


def _escaped(cell: str) -> str:
    marked = "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|~" else c for c in cell)
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br>")
