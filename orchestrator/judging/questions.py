"""A question of somebody's own, of a file or a command line, as an item like a benchmark's: it has no right answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.data.media import IMAGE_FIELDS, VIDEO_FIELDS, media_parts, place_media
from orchestrator.data.rows import JsonRow, RowError, shown, text_field, unicode_text
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.fields import said, text_of
from orchestrator.evaluation.benchmarks.files import ItemFile, Items, items_of, read_rows
from orchestrator.evaluation.benchmarks.items import Item, ItemDraft, Part, Questions

KEYS = ("id", "question", *IMAGE_FIELDS, *VIDEO_FIELDS, "responses")
_FEWEST, _MOST = 2, 9
_PLACEHOLDERS = ("<image>", "<video>")


def read_question(row: dict[str, Any], name: str) -> ItemDraft:
    """A row with ``question`` and ``responses``, and perhaps ``images`` or ``videos`` and an ``id``.

    Raises:
        RowError: naming field and value; also of a key that nobody reads.
    """
    unknown = next((key for key in row if key not in KEYS), None)
    if unknown is not None:
        raise RowError(f"key {unknown!r} is not read: expected {', '.join(KEYS)}")
    return ItemDraft(
        id=text_of(row, "id", default=""),
        question=question_parts(text_field(row, "question"), media_parts(row)),
        responses=tuple(said(text) for text in _responses(row.get("responses"))),
    )


QUESTIONS = Questions(asks="verdict", read=read_question)
"""Reward models are asked for a reward of each response instead."""


def question_parts(text: str, media: dict[str, list[dict[str, str]]]) -> tuple[Part, ...]:
    """The media where the text has ``<image>`` and ``<video>``, or before it where it has none.

    Raises:
        RowError: there are more or fewer places than media.
    """
    if any(one in text for one in _PLACEHOLDERS):
        (turn,) = place_media([("user", text)], media)
        return tuple(turn["content"])
    return (*media["image"], *media["video"], {"type": "text", "text": text})


def items_in(file: ItemFile) -> tuple[Item, ...]:
    """The questions of a file; one that cannot be asked is not passed over.

    Raises:
        RefusedInput: the file cannot be read, is empty, or has a row that cannot be used.
    """
    items = _usable(items_of(read_rows(file, QUESTIONS), file, QUESTIONS), where=f"row {{row}} of {str(file.path)!r}: ")
    if not items:
        raise RefusedInput(f"{str(file.path)!r} has no row")
    return items


def item_of(
    file: ItemFile, *, question: str, images: Sequence[str], videos: Sequence[str], responses: Sequence[str]
) -> Item:
    """The question of a command line.

    Args:
        file: Says where the media are.
        videos: Folders of frames, or video files.
    Raises:
        RefusedInput: it cannot be used.
    """
    row = {"question": question, "images": list(images), "videos": list(videos), "responses": list(responses)}
    (item,) = _usable(items_of(iter([("", JsonRow(1, row))]), file, QUESTIONS), where="")
    return item


def under(root: str | None, names: Sequence[str]) -> tuple[Path, list[str]]:
    """The media root of a command line's own files, and their names: without a root, all of the machine.

    Args:
        root: ``data.media_root``.
    """
    if root is not None:
        return Path(root), list(names)
    return Path("/"), [str(Path(name).absolute()) for name in names]


def _usable(found: Items, *, where: str) -> tuple[Item, ...]:
    if found.bad_rows:
        bad = found.bad_rows[0]
        others = f"; {len(found.bad_rows) - 1} more rows cannot be used" if len(found.bad_rows) > 1 else ""
        raise RefusedInput(f"{where.format(row=bad.row)}{bad.reason}{others}")
    return found.items


def _responses(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise RowError(f"field 'responses' is {shown(value)}, expected a list of texts")
    if not _FEWEST <= len(value) <= _MOST:
        raise RowError(f"field 'responses' has {len(value)} texts, expected {_FEWEST} to {_MOST}")
    for number, text in enumerate(value, start=1):
        unicode_text(text, "responses")
        if not text.strip():
            raise RowError(f"response {number} is {shown(text)}, expected text")
        same = next((n for n, other in enumerate(value[: number - 1], start=1) if other.strip() == text.strip()), None)
        if same is not None:
            raise RowError(f"responses {same} and {number} are the same, {shown(text)}")
    return value
