"""Rows of a JSON array or of a JSONL file, numbered as people count them; their fields, and what fails them."""

import codecs
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.data.depth import TooDeep, shallow
from orchestrator.errors import RefusedInput, one_line

_SHOWN_CHARS, _MOST_CHARS = 80, 600
# Besides JSONDecodeError: an integer of thousands of digits is a ValueError, brackets nested without end recurse.
_JSON_ERRORS = (ValueError, RecursionError)
_UID = re.compile(r"(.*-(\d+))(?:\.(\d+))?", re.S)


class RowError(ValueError):
    """Why a row cannot be used, in one sentence naming field and value."""


class RowPicture(str):
    """The path of a file made of a picture that stood in a row: it needs no looking for."""

    __slots__ = ()


def row_pictures(value: Any) -> tuple[RowPicture, ...]:
    """Those that a field of a row holds; none where it holds anything else."""
    values = value if isinstance(value, list) else [value]
    return tuple(values) if all(isinstance(one, RowPicture) for one in values) else ()


def text_field(row: dict[str, Any], field: str) -> str:
    """The text of a field that must hold some.

    Raises:
        RowError: it is missing, blank, no text, or not valid Unicode.
    """
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"field {field!r} is {shown(value)}, expected text")
    return unicode_text(value, field)


def json_field(row: dict[str, Any], field: str) -> Any:
    """The value of a field, which may be written as a text of JSON.

    Raises:
        RowError: it is a text and no JSON.
    """
    value = row.get(field)
    try:
        return shallow(decoded(value)) if isinstance(value, str) else value
    except _JSON_ERRORS as error:
        raise RowError(f"field {field!r} is not valid JSON: {_json_problem(error)}") from error


def unicode_text(text: str, field: str) -> str:
    """Return ``text``; half a surrogate pair is valid JSON, but no tokenizer takes it.

    Raises:
        RowError: naming field and character; or it is a picture, of which the name of our file is no text of the row.
    """
    if isinstance(text, RowPicture):
        raise RowError(f"field {field!r} is a picture, expected text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"field {field!r} is not valid Unicode at character {error.start + 1}") from error
    return text


def is_finite_number(value: Any) -> bool:
    """Whether a decoded value is a number that a float can be: JSON has integers of any length, NaN and Infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def shown(value: Any) -> str:
    """A value as JSON, on one line and not longer than a line."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]} ..."


class _RepeatedKey(ValueError):
    """An object that has a key twice, of which JSON readers keep the last without a word."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used."""

    row: int
    """1-based: the line of a JSONL file, the element of a JSON array."""
    reason: str
    """One sentence naming field and value, cut to a line."""

    def __post_init__(self) -> None:
        # A row may hold anything, e.g. a whole picture where a name is expected.
        object.__setattr__(self, "reason", one_line(self.reason, most=_MOST_CHARS))


def row_uid(path: Path, number: int, *, answer: int | None = None) -> str:
    """The uid of a row: the file's name and the row's number.

    Args:
        answer: 1-based number of the answer that is learned, of a conversation with several.
    """
    return f"{path.stem or path.resolve().stem}-{number:06d}" + ("" if answer is None else f".{answer}")


def uid_parts(uid: str) -> tuple[str, int, int]:
    """Uid of the row, its number, and the number of its answer; 1 where it has but one."""
    found = _UID.fullmatch(uid)
    return (uid, 0, 1) if found is None else (found[1], int(found[2]), int(found[3] or 1))


@dataclass(frozen=True, slots=True)
class JsonRow:
    """One decoded row."""

    number: int
    """1-based: the line of a JSONL file, the element of a JSON array."""
    value: Any
    place: str = ""
    """Where it stands, for people, where the number alone does not say: `` (row 3 of 'b.jsonl')``."""


def read_json_rows(path: Path) -> Iterator[JsonRow | BadRow]:
    """Give every row in file order; blank lines are no rows, a line that is not JSON is a bad one.

    JSONL is read line by line, so that a file of any length passes through; an array is read whole.

    Raises:
        RefusedInput: the file is missing or not UTF-8, or is an array that is not JSON.
    """
    return _opened(path, _rows)


def read_json_groups(path: Path, *, field: str) -> Iterator[JsonRow | BadRow]:
    """Yield the rows with the same value of a field together, wherever they stand, in the order of their first rows.

    What is yielded has the number of the first row and, as its value, a tuple of all of them as ``JsonRow``. A row
    stands alone where the field is no text and no whole number. JSONL is read twice, the second time a group at a time:
    memory holds the places of the lines and never all their text.

    Raises:
        RefusedInput: as ``read_json_rows``.
    """
    return _opened(path, lambda file, _: _grouped(file, path, field))


_Rows = Iterator[JsonRow | BadRow]


def file_sha256(path: Path) -> str:
    """Digest of a data file.

    Raises:
        RefusedInput: there is none.
    """
    with _existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise RefusedInput(f"data file {str(path)!r} is not a file")
    return path


def _opened(path: Path, read: Callable[[IO[bytes], Path], _Rows]) -> _Rows:
    _existing(path)
    try:
        with path.open("rb") as file:
            yield from read(file, path)
    except OSError as error:
        raise RefusedInput(f"data file {str(path)!r} cannot be read ({error.strerror})") from error


def _rows(file: IO[bytes], path: Path) -> _Rows:
    if _is_array(file):
        yield from _array(file.read(), path)
    else:
        yield from (row for _, row in _lines(file, path))


def _grouped(file: IO[bytes], path: Path, field: str) -> _Rows:
    if _is_array(file):
        yield from grouped(list(_array(file.read(), path)), field)
        return
    for group in _places(_lines(file, path), field):
        yield _together(group, lambda number, offset: _line_at(file, path, number, offset))


def grouped(rows: Sequence[JsonRow | BadRow], field: str) -> _Rows:
    """Rows at hand as ``read_json_groups`` yields those of a file."""
    for group in _places(enumerate(rows), field):
        yield _together(group, lambda _, index: rows[index])


def _together(group: BadRow | list[tuple[int, int]], row_at: Callable[[int, int], Any]) -> JsonRow | BadRow:
    if isinstance(group, BadRow):
        return group
    rows = tuple(row_at(number, place) for number, place in group)
    return JsonRow(rows[0].number, rows, rows[0].place)


def _places(rows: Iterable[tuple[int, JsonRow | BadRow]], field: str) -> Iterable[BadRow | list[tuple[int, int]]]:
    """Number and place of every row of each group; a dict keeps the order in which its keys came."""
    groups: dict[tuple[bool, Any], BadRow | list[tuple[int, int]]] = {}
    for place, row in rows:
        if isinstance(row, BadRow):
            groups[False, row.row] = row
            continue
        value = row.value.get(field) if isinstance(row.value, dict) else None
        shared = isinstance(value, str | int) and not isinstance(value, bool)
        group = groups.setdefault((shared, value if shared else row.number), [])
        assert isinstance(group, list)
        group.append((row.number, place))
    return groups.values()


def _line_at(file: IO[bytes], path: Path, number: int, offset: int) -> JsonRow:
    file.seek(offset)
    try:
        return JsonRow(number, decoded(_text(file.readline(), offset, path)))
    except _JSON_ERRORS as error:
        raise RefusedInput(f"data file {str(path)!r} changed while it was read (line {number})") from error


def _is_array(file: IO[bytes]) -> bool:
    """Whether the first character that is not white space opens an array; leaves the file at its start."""
    first = next((text for line in file if (text := line.removeprefix(codecs.BOM_UTF8).strip())), b"")
    file.seek(0)
    return first.startswith(b"[")


def _array(data: bytes, path: Path) -> Iterator[JsonRow]:
    try:
        elements = decoded(_text(data, 0, path))
    except _JSON_ERRORS as error:
        raise RefusedInput(f"data file {str(path)!r} is not valid JSON: {_json_problem(error)}") from error
    yield from (JsonRow(number, element) for number, element in enumerate(elements, start=1))


def _lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, JsonRow | BadRow]]:
    """Each row and the byte at which its line begins."""
    # A binary file is cut at \n alone; a text one also at U+2028 and its like, which may stand in a JSON text.
    end = 0
    for number, line in enumerate(file, start=1):
        offset, end = end, end + len(line)
        text = _text(line, offset, path).removesuffix("\n")  # a column past the end would be told as line 2
        if text.strip():
            try:
                yield offset, JsonRow(number, decoded(text))
            except _JSON_ERRORS as error:
                yield offset, BadRow(number, f"not valid JSON: {_json_problem(error)}")


def decoded(text: str) -> Any:
    """What a JSON text says; one of ``_JSON_ERRORS`` where it is no JSON, or an object in it has a key twice."""
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKey(f"key {shown(next(key for key in keys if keys.count(key) > 1))} is given twice")
    return made


def _json_problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno} " if error.lineno > 1 else ""  # a JSONL row has but one, which has its own number
        return f"{error.msg} at {line}column {error.colno}"
    if isinstance(error, _RepeatedKey | TooDeep):
        return str(error)
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


def _text(data: bytes, offset: int, path: Path) -> str:
    """Decode what stands ``offset`` bytes into the file, less the mark that some editors put at its start."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff" if offset == 0 else "")
    except UnicodeDecodeError as error:
        raise RefusedInput(f"data file {str(path)!r} is not UTF-8 text (byte {offset + error.start})") from error
