"""Fields of released rows: what each may hold, and what fails a row in one sentence."""

import ast
import json
import math
from collections.abc import Collection, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from orchestrator.data.depth import shallow
from orchestrator.data.keys import is_empty
from orchestrator.data.media import media_parts
from orchestrator.data.rows import RowError, shown, unicode_text
from orchestrator.evaluation.answers import YesNo
from orchestrator.evaluation.benchmarks.items import Part

_MARK = "<image>"
_LONGEST_LIST = 1_000_000
_MOST_DIGITS = 18
_LIST_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError)


def text_of(row: Mapping[str, Any], *names: str, default: str | None = None) -> str:
    """The text of the first of the columns that holds something; a number is the text that writes it.

    Raises:
        RowError: none does, and there is no default, or it is neither text nor number.
    """
    for name in names:
        value = row.get(name)
        if is_empty(value) or (isinstance(value, float) and math.isnan(value)):
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise RowError(f"field {name!r} is {shown(value)}, expected text")
        return unicode_text(value if isinstance(value, str) else str(value), name)
    if default is not None:
        return default
    which = f"field {names[0]!r}" if len(names) == 1 else f"one of the fields {', '.join(map(repr, names))}"
    raise RowError(f"{which} is missing or empty, expected text")


def yes_no_of(row: Mapping[str, Any], *names: str) -> YesNo:
    """A label that is yes or no, in any case.

    Raises:
        RowError: it is something else.
    """
    text = text_of(row, *names).strip().lower()
    if text == "yes":
        return "yes"
    if text == "no":
        return "no"
    raise RowError(f"field {names[0]!r} is {shown(text)}, expected yes or no")


def list_of(row: Mapping[str, Any], name: str) -> list[Any]:
    """A list, which may be written as the text of one, by JSON's or Python's rules; nothing in it is ever run.

    Raises:
        RowError: it is something else.
    """
    value = row.get(name)
    if isinstance(value, str):
        value = _written(value)
    if not isinstance(value, list):
        raise RowError(f"field {name!r} is {shown(row.get(name))}, expected a list")
    return value


def json_of(row: Mapping[str, Any], name: str) -> Any:
    """A value that may be written as a text of JSON; None where there is none, or the text is no JSON."""
    value = row.get(name)
    try:
        return shallow(json.loads(value)) if isinstance(value, str) and value.strip() else value
    except _LIST_ERRORS:
        return None


def texts_of(row: Mapping[str, Any], name: str) -> list[str]:
    """A list of texts; numbers are the texts that write them.

    Raises:
        RowError: it is something else.
    """
    values = list_of(row, name)
    if not all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in values):
        raise RowError(f"field {name!r} is {shown(values)}, expected a list of texts")
    return [unicode_text(str(value), name) for value in values]


def lettered(texts: Sequence[str]) -> dict[str, str]:
    """Options by their letters.

    Raises:
        RowError: there are more than letters.
    """
    if len(texts) > len(ascii_uppercase):
        raise RowError(f"the row has {len(texts)} options, at most {len(ascii_uppercase)} have a letter")
    return dict(zip(ascii_uppercase, texts, strict=False))


def options_of(row: Mapping[str, Any], letters: str = ascii_uppercase) -> dict[str, str]:
    """Options that stand in columns named by their letters, with the gaps that the file has."""
    return {letter: text_of(row, letter) for letter in letters if text_of(row, letter, default="")}


def letter_of(row: Mapping[str, Any], options: Mapping[str, str], *names: str) -> str:
    """The label of a choice, a letter of one of its options.

    Raises:
        RowError: it is none.
    """
    letter = text_of(row, *names).strip()
    if letter not in options:
        raise RowError(f"field {names[0]!r} is {shown(letter)}, expected one of {', '.join(options)}")
    return letter


def images_of(row: Mapping[str, Any], *names: str) -> tuple[Part, ...]:
    """Parts naming a row's images; of columns with the same pictures the first that holds some.

    Raises:
        RowError: a column holds no path, no list of paths and no picture.
    """
    for name in names or ("image",):
        parts = media_parts(dict(row), image_fields=(name,))["image"]
        if parts:
            return tuple(parts)
    return ()


def image_numbers(marks: Sequence[str], num_images: int, *, told: str) -> list[int]:
    """Numbers of the images that marks in the words of a row name.

    Args:
        marks: The digits of each.
        told: What a mark without an image is told as, with places for its digits and ``num_images``.
    Raises:
        RowError: the row has no such image.
    """
    # Python reads no number of thousands of digits.
    numbers = [int(mark) if len(mark) <= _MOST_DIGITS else 0 for mark in marks]
    for mark, number in zip(marks, numbers, strict=True):
        if not 1 <= number <= num_images:
            raise RowError(told.format(mark if len(mark) <= _MOST_DIGITS else f"{mark[:_MOST_DIGITS]}...", num_images))
    return numbers


def needed_images(row: Mapping[str, Any], *names: str) -> tuple[Part, ...]:
    """The same of a row that must have one.

    Raises:
        RowError: it has none.
    """
    parts = images_of(row, *names)
    if not parts:
        raise RowError(f"field {(names or ('image',))[0]!r} is empty: the row has no image")
    return parts


def asked(media: Sequence[Part], text: str) -> tuple[Part, ...]:
    """The media, then the words, which lose their marks of images: no benchmark here says where they stand."""
    words = text.replace(f"{_MARK}\n", "").replace(f"\n{_MARK}", "").replace(_MARK, "")
    if not words.strip():
        raise RowError("the row asks nothing")
    return (*media, {"type": "text", "text": words})


def said(text: str) -> tuple[Part, ...]:
    """A response that is text alone."""
    return ({"type": "text", "text": text},)


def unknown(row: Mapping[str, Any], known: Collection[str]) -> tuple[str, ...]:
    """Columns that hold something and that nobody knows."""
    return tuple(name for name, value in row.items() if name not in known and not is_empty(value))


def _written(text: str) -> Any:
    if len(text) > _LONGEST_LIST:
        return None
    try:
        return shallow(json.loads(text))
    except _LIST_ERRORS:
        pass
    try:
        value = ast.literal_eval(text)  # constants, lists and dicts alone: no name, no call
        # Python writes sets, keys of any kind and hexadecimal numbers without end, too.
        json.dumps(shallow(value))
    except (*_LIST_ERRORS, TypeError):
        return None
    return value
