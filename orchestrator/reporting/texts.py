"""Texts of rows on a page: how much of each it shows, so that all of them fit."""

from collections.abc import Iterable

from orchestrator.reporting.charts import number

LONGEST = 4000
_MOST_CHARS = 3 << 20


def cut(text: str, longest: int = LONGEST) -> str:
    """As much of a text as a page shows, and how much it leaves out."""
    left_out = len(text) - longest
    return text if left_out <= 0 else f"{text[:longest]} … {left_out} characters more"


def longest_of(texts: Iterable[str], *, share: float = 1.0) -> int:
    """How many characters of each of these a page has room for, at most ``LONGEST``.

    Args:
        share: Of the room.
    """
    lengths, longest = list(map(len, texts)), LONGEST
    while longest > 50 and sum(min(length, longest) for length in lengths) > share * _MOST_CHARS:
        longest //= 2
    return longest


def or_none(value: float | None) -> str:
    """A figure, or that there is none."""
    return "none" if value is None else number(value)
