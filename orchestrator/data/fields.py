"""Checks of single fields, and the sentence for what fails them."""

import json
import sys
from typing import Any

_SHOWN_CHARS = 80


class RowError(ValueError):
    """Why a row cannot be used, in one sentence naming field and value."""


def text_field(row: dict[str, Any], field: str) -> str:
    """The text of a field that must hold some.

    Raises:
        RowError: it is missing, blank, no text, or not valid Unicode.
    """
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"field {field!r} is {shown(value)}, expected text")
    return unicode_text(value, field)


def unicode_text(text: str, field: str) -> str:
    """Return ``text``; half a surrogate pair is valid JSON, but no tokenizer takes it.

    Raises:
        RowError: naming field and character.
    """
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
