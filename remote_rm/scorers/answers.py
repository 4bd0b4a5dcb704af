"""Rewards for the right answer: 1 where the completion's is the row's, else 0.

The answer is what stands in the last ``<answer>…</answer>``, else in the last ``\\boxed{…}``, else behind the thinking,
else all of it. A label that cannot be compared at all is an error and no wrong answer.
"""

import re
from fractions import Fraction
from typing import Any

# The last that is opened: a model that opens it again and again before it closes it still says one thing.
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL)
_BRACES = re.compile(r"\\boxed\s*\{|[{}]")
_NUMBER = re.compile(
    r"(?:(?<![\d.,])(?P<sign>(?<![\w)}])[-+−]?)\s*|(?=\\[dt]?frac))(?:"
    r"\\[dt]?frac\s*\{\s*(?P<over>\d{1,30})\s*\}\s*\{\s*(?P<under>\d{1,30})\s*\}"
    r"|(?P<whole>\d{1,3}(?:,\d{3}){1,9}(?:\.\d{1,30})?|\d{1,30}(?:\.\d{1,30})?|\.\d{1,30})"
    r"(?:[eE](?P<power>[-+]?\d{1,3})(?![\d.]))?(?:\s*/\s*(?P<bottom>\d{1,30})(?![\d.,/]))?(?!\d|[.,]\d))"
    r"\s*(?P<percent>\\?%|percent\b)?"
)
_WHITE = re.compile(r"\s+")
# "A dog" and "I see" name no letter, "A or B" names two.
_LETTER = re.compile(r"(?<![A-Za-z])(?![AI]\s+(?!or\b|and\b)[a-z])\(?([A-Z])\)?(?![A-Za-z'’])")
_BARE_LETTER = re.compile(r"\(?([A-Za-z])(?:[).:].*)?", re.DOTALL)
_TOLD_LETTER = re.compile(r"(?:answer|option|choice)(?:\s+is)?\s*:?\s*\**\(?([A-Z])\b", re.IGNORECASE)
_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip


def answer_of(text: str) -> str:
    """Where a text says what it comes to."""
    if tagged := _ANSWER.findall(text):
        text = tagged[-1]
    if (boxed := _last_boxed(text)) is not None:
        return boxed.strip()
    return (text if tagged else _THOUGHT.sub("", text, count=1)).strip()


def exact(completion: str, label: str | None) -> float:
    """The same words; capitals, white space and a closing full stop do not count."""
    return float(_plain(answer_of(completion)) == _plain(answer_of(_given(label))))


def number(completion: str, label: str | None, *, tolerance: float = 0.0) -> float:
    """The same number: the last one of the answer, as digits, a fraction, a percentage, or with thousands' commas.

    Args:
        tolerance: Largest accepted distance, as a share of the label's; 0 compares exactly, 0.05 is what chart
            questions are counted by.
    """
    wanted, found = _number(answer_of(_given(label))), _number(answer_of(completion))
    if wanted is None:
        raise ValueError(f"the label {label!r} is no number")
    return float(found is not None and abs(found - wanted) <= abs(wanted) * Fraction(str(tolerance)))


def count(completion: str, label: str | None) -> float:
    """The same whole number, in digits or as an English word up to twenty."""
    wanted, found = _whole(answer_of(_given(label))), _whole(answer_of(completion))
    if wanted is None:
        raise ValueError(f"the label {label!r} is no whole number")
    return float(found == wanted)


def choice(completion: str, label: str | None) -> float:
    """The same letter of a multiple choice: alone, in brackets, before its text, or behind "the answer is"."""
    wanted = _letter(answer_of(_given(label)))
    if wanted is None:
        raise ValueError(f"the label {label!r} is no letter")
    return float(_letter(answer_of(completion)) == wanted)


def math(completion: str, label: str | None) -> float:
    """The same mathematics, as the package math-verify sees it: ``\\frac{1}{2}`` is ``0.5``, ``x+1`` is ``1+x``."""
    from math_verify import parse, verify  # deferred: it loads sympy

    # Its own time-outs are signals; the process has a deadline of its own.
    untimed: dict[str, Any] = {"parsing_timeout": None}
    wanted = parse(_as_mathematics(_given(label)), **untimed)
    if not wanted:
        raise ValueError(f"the label {label!r} is no mathematics")
    return float(verify(wanted, parse(_as_mathematics(completion), **untimed), timeout_seconds=None))


def _as_mathematics(text: str) -> str:
    return f"\\boxed{{{answer_of(text)}}}"


def _given(label: str | None) -> str:
    if label is None or not label.strip():
        raise ValueError("the row has no label")
    return label


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(".").strip()


def _last_boxed(text: str) -> str | None:
    """What is in the last box that is closed; in one pass, as a model may open thousands."""
    opened: list[int | None] = []
    found: tuple[int, int] | None = None
    for brace in _BRACES.finditer(text):
        if brace[0] != "}":
            opened.append(brace.end() if brace[0] != "{" else None)
        elif opened and (start := opened.pop()) is not None and (found is None or start > found[0]):
            found = start, brace.start()
    return None if found is None else text[found[0] : found[1]]


def _number(text: str) -> Fraction | None:
    # A run of white space is one character, or it is read once for each of its own.
    text = _WHITE.sub(_as_one, text.replace("\\,", "").replace("$", " "))
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    value = _value(found[-1])
    if len(found) < 2 or value is None or (units := _units_before(found[-2], found[-1], value)) is None:
        return value
    return units - value if found[-2]["sign"] in ("-", "−") else units + value


def _as_one(run: re.Match[str]) -> str:
    """Spaces as a space, any other run as a break: units and their fraction have nothing but spaces between."""
    return "\n" if run[0].strip(" ") else " "


def _units_before(before: re.Match[str], last: re.Match[str], value: Fraction) -> Fraction | None:
    """The 3 of ``3 1/2``: a whole number in front of a proper fraction, nothing but a space between."""
    gap = last.string[before.end("whole") : last.start()]
    is_fraction = (last["under"] or last["bottom"]) and not (last["sign"] or last["power"] or last["percent"])
    is_whole = (before["whole"] or ".").isdigit() and not (before["power"] or before["bottom"] or before["percent"])
    if not is_fraction or not is_whole or value >= 1 or gap.strip(" ") or not (gap or last["under"]):
        return None
    return _value(before)


def _value(match: re.Match[str]) -> Fraction | None:
    bottom = int(match["under"] or match["bottom"] or "1")
    if bottom == 0:
        return None
    value = Fraction((match["over"] or match["whole"]).replace(",", "")) / bottom
    value *= Fraction(10) ** int(match["power"] or "0")
    if match["percent"]:
        value /= 100
    return -value if match["sign"] in ("-", "−") else value


def _whole(text: str) -> int | None:
    words = [_WORDS.index(word) for word in re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower()) if word in _WORDS]
    value = _number(text)
    if value is None:
        return words[-1] if words else None
    return int(value) if value.denominator == 1 else None


def _letter(text: str) -> str | None:
    if bare := _BARE_LETTER.fullmatch(text):
        return bare[1].upper()
    if told := _TOLD_LETTER.findall(text):
        return told[-1].upper()
    letters = set(_LETTER.findall(text))
    return letters.pop() if len(letters) == 1 else None
