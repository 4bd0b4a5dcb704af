"""Rows of a JSON array or of a JSONL file, numbered as people count them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    Raises:
        RefusedInput: the file is missing or not UTF-8, or is an array that is not JSON.
    """
    text = _text(path)
    if text.lstrip().startswith("["):
        try:
            elements = json.loads(text)
        except JSON_ERRORS as error:
            raise RefusedInput(f"data file {str(path)!r} is not valid JSON: {json_problem(error)}") from error
        yield from (JsonRow(number, element) for number, element in enumerate(elements, start=1))
        return
    # Not splitlines(): that also cuts at U+2028 and its like, which may stand in a JSON text.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield JsonRow(number, json.loads(line))
            except JSON_ERRORS as error:
                yield BadRow(number, f"not valid JSON: {json_problem(error)}")


def json_problem(error: Exception) -> str:
    """What is wrong and where, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno} " if error.lineno > 1 else ""  # a JSONL row has but one, which has its own number
        return f"{error.msg} at {line}column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


def _text(path: Path) -> str:
    if not path.is_file():
        raise RefusedInput(f"data file {str(path)!r} is not a file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedInput(f"data file {str(path)!r} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise RefusedInput(f"data file {str(path)!r} cannot be read ({error.strerror})") from error
