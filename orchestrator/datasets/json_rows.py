"""Rows of a JSON array or of a JSONL file, numbered as people count them."""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.datasets.dataset import BadRow
from orchestrator.errors import RefusedInput

# Besides JSONDecodeError: an integer of thousands of digits is a ValueError, brackets nested without end recurse.
JSON_ERRORS = (ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class JsonRow:
    """One decoded row."""

    number: int
    """1-based: the line of a JSONL file, the element of a JSON array."""
    value: Any


def read_json_rows(path: Path) -> Iterator[JsonRow | BadRow]:
    """Yield every row in file order; blank lines are no rows, a line that is not JSON is a bad one.

    JSONL is read line by line, so that a file of any length passes through; an array is read whole.

    Raises:
        RefusedInput: the file is missing or not UTF-8, or is an array that is not JSON.
    """
    if not path.is_file():
        raise RefusedInput(f"data file {str(path)!r} is not a file")
    try:
        with path.open("rb") as file:
            yield from _array(file.read(), path) if _is_array(file) else _lines(file, path)
    except OSError as error:
        raise RefusedInput(f"data file {str(path)!r} cannot be read ({error.strerror})") from error


def _is_array(file: IO[bytes]) -> bool:
    """Whether the first character that is not white space opens an array; leaves the file at its start."""
    first = next((text for line in file if (text := line.removeprefix(codecs.BOM_UTF8).strip())), b"")
    file.seek(0)
    return first.startswith(b"[")


def _array(data: bytes, path: Path) -> Iterator[JsonRow]:
    try:
        elements = json.loads(_text(data, 0, path))
    except JSON_ERRORS as error:
        raise RefusedInput(f"data file {str(path)!r} is not valid JSON: {json_problem(error)}") from error
    yield from (JsonRow(number, element) for number, element in enumerate(elements, start=1))


def _lines(file: IO[bytes], path: Path) -> Iterator[JsonRow | BadRow]:
    # A binary file is cut at \n alone; a text one also at U+2028 and its like, which may stand in a JSON text.
    offset = 0
    for number, line in enumerate(file, start=1):
        text = _text(line, offset, path).removesuffix("\n")  # a column past the end would be told as line 2
        offset += len(line)
        if text.strip():
            try:
                yield JsonRow(number, json.loads(text))
            except JSON_ERRORS as error:
                yield BadRow(number, f"not valid JSON: {json_problem(error)}")


def json_problem(error: Exception) -> str:
    """What is wrong and where, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno} " if error.lineno > 1 else ""  # a JSONL row has but one, which has its own number
        return f"{error.msg} at {line}column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


def _text(data: bytes, offset: int, path: Path) -> str:
    """Decode what stands ``offset`` bytes into the file, less the mark that some editors put at its start."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff" if offset == 0 else "")
    except UnicodeDecodeError as error:
        raise RefusedInput(f"data file {str(path)!r} is not UTF-8 text (byte {offset + error.start})") from error
