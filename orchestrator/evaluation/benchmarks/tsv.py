"""TSV files of VLMEvalKit: a table whose images are base64 text, or the index of the row that holds the same image.

Rows are numbered from 1 behind the head. A picture becomes a file before the next row is read, so that memory holds the
words alone.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.data.row_pictures import RowPictures
from orchestrator.data.rows import BadRow, JsonRow, RowError, row_pictures, shown
from orchestrator.errors import RefusedInput

SUFFIX = ".tsv"
IMAGE, INDEX = "image", "index"
_LONGEST_REFERENCE = 64
_LARGEST_FIELD = 1 << 28
"""Characters of a field, far above any image in base64 and far below what fills the memory."""
_ITEMS = re.compile(r"['\"]([^'\"]*)['\"]")


@dataclass(slots=True)
class _Read:
    """A row without its pictures' bytes."""

    number: int
    value: dict[str, Any]
    refers_to: str | None
    """Index of the row whose images are its own."""


def read_tsv_rows(path: Path, pictures: RowPictures) -> Iterator[JsonRow | BadRow]:
    """Give every row in file order, ``image`` a file or a list of files.

    Raises:
        RefusedInput: the file cannot be read, is not UTF-8, or its head lacks a column that VLMEvalKit's files have.
    """
    read: list[_Read | BadRow] = []
    images: dict[str, Any] = {}
    for number, row in _rows(path):
        found = _one(number, row, pictures)
        read.append(found)
        if isinstance(found, _Read) and found.refers_to is None:
            images[found.value.get(INDEX, "")] = found.value.get(IMAGE)
    refers = {one.value[INDEX]: one.refers_to for one in read if isinstance(one, _Read) and one.refers_to}
    for one in read:
        yield one if isinstance(one, BadRow) else _with_image(one, images, refers)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    before = csv.field_size_limit(_LARGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            if INDEX not in (reader.fieldnames or ()):
                told = ", ".join(map(repr, reader.fieldnames or ()))
                raise RefusedInput(f"data file {str(path)!r} has the columns {told or 'none'}, and no 'index'")
            yield from enumerate(reader, start=1)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RefusedInput(f"data file {str(path)!r} cannot be read as TSV ({error})") from error
    finally:
        csv.field_size_limit(before)


def _one(number: int, row: dict[str, Any], pictures: RowPictures) -> _Read | BadRow:
    if None in row or None in row.values():
        return BadRow(number, "the row has another number of columns than the head")
    value = {name: text for name, text in row.items() if text != ""}
    image, refers_to = value.get(IMAGE), None
    try:
        if image is not None and len(image) <= _LONGEST_REFERENCE and not image.startswith("["):
            refers_to = value.pop(IMAGE)
        elif image is not None and image.startswith("["):
            value[IMAGE] = [_picture(text, pictures) for text in _ITEMS.findall(image)]
        elif image is not None:
            value[IMAGE] = _picture(image, pictures)
    except RowError as error:
        return BadRow(number, str(error))
    return _Read(number, value, refers_to)


def _picture(text: str, pictures: RowPictures) -> Any:
    found = pictures.of_json({IMAGE: text})[IMAGE]
    if not row_pictures(found):
        raise RowError(f"field {IMAGE!r} is {shown(text)}, which is no image in base64")
    return found


def _with_image(one: _Read, images: dict[str, Any], refers: Mapping[str, str]) -> JsonRow | BadRow:
    index, seen = one.refers_to, set[str]()
    while index is not None and index not in images and index in refers and index not in seen:
        seen.add(index)
        index = refers.get(index)
    if one.refers_to is None:
        return JsonRow(one.number, one.value)
    if index is None or images.get(index) is None:
        return BadRow(one.number, f"field {IMAGE!r} is {shown(one.refers_to)}, the index of no row that holds an image")
    return JsonRow(one.number, {**one.value, IMAGE: images[index]})
