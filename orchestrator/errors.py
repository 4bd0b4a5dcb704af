"""The two ways a run ends early on purpose, and their exit codes; a failed validation is one of them."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

_MOST_CHARS = 290
"""Of a refusal: with the word before it, no line is longer than 300."""
_MOST_CHARS_OF_A_STOP = 2000
_MOST_CHARS_OF_A_VALUE = 100
_MOST_CHARS_OF_A_LIST, _MOST_NEAR = 160, 3
_NAME = re.compile(r"'([^']+)'")
_MOST_TOLD = 20
_MORE = " more problems"
_LEFT_OUT = " ... "
_LONGEST_TEXT = 300_000
"""Of what is looked at to be shown."""
_QUOTED = re.compile(r"""(?<!\w)'(?:[^'\\]|\\.)*'|(?<!\w)"(?:[^"\\]|\\.)*"|[^\s'"]+""")
"""Values stand between quotes, or are one word; an apostrophe within a word opens none."""
_SECRET = re.compile(
    r"""(?P<before>\b[a-z][a-z0-9+.-]{1,20}(?::|%3a)(?:/|%2f){2})[^\s/'"<>]{1,512}(?=@|%40)"""
    r"""|(?P<name>[?&][\w.-]{0,40}(?:key|token|secret|signature|password|credential)=)[^\s&'"<>]+""",
    re.IGNORECASE,
)
"""Credentials in an address, which people paste where none is asked for."""
_EXPECTED = {
    "int_type": "expected an integer",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "model_type": "expected a table",
    "dict_type": "expected a table",
    "finite_number": "expected a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "literal_error": "expected {expected}",
    "too_short": "expected at least {min_length} values, got {actual_length}",
    "too_long": "expected at most {max_length} values, got {actual_length}",
    "extra_forbidden": "no such key",
    "value_error": "{error}",
}


class RefusedInput(Exception):
    """Bad input or configuration: one line naming field or row, value and bound. Exit code 2."""

    def __str__(self) -> str:
        # A command line shows less of it.
        return told(super().__str__(), most=_MOST_CHARS_OF_A_STOP)


class GuardStop(Exception):
    """A guard stopped the run: one line with the reason; a checkpoint is left. Exit code 3."""

    def __str__(self) -> str:
        return told(super().__str__(), most=_MOST_CHARS_OF_A_STOP)


def one_line(text: str, *, most: int) -> str:
    """A message without line breaks and about as long as ``most``, its middle left out: who and why are at its ends.

    What a terminal would obey, or not show, is spelled out; of an address, no credentials are shown.
    """
    line = _SECRET.sub(r"\g<before>\g<name>***", " ".join(_shortened(text, _LONGEST_TEXT).splitlines()))
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in line)
    return _shortened(shown, most)


def told(text: str, *, most: int) -> str:
    """A message for people on one line of at most ``most`` characters; a long value in it gives way before the words.

    Every refusal and every stop is shown by this, whatever values it quotes.
    """
    line = one_line(text, most=_LONGEST_TEXT)
    if len(line) > most:
        line = _QUOTED.sub(lambda found: _shortened(found[0], _MOST_CHARS_OF_A_VALUE), line)
    return _shortened(line, most - len(_LEFT_OUT))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most * 2 // 3]}{_LEFT_OUT}{text[-(most // 3) :]}"


def refusal(error: ValidationError, *, sources: Mapping[str, str] | None = None) -> RefusedInput:
    """Turn a pydantic failure into the one line a person needs; several problems are joined by ``;``, of very many the
    first ones are told.

    Args:
        sources: Where each value came from by dotted name: ``in a.toml`` or ``on the command line``.
    """
    problems, count = error.errors(include_url=False), error.error_count()
    lines = [_line(dict(problem), sources or {}) for problem in problems[:_MOST_TOLD]]
    if len("; ".join(lines)) > _MOST_CHARS:
        # Of alternatives, the one whose type fits says more than the others.
        is_another = [problem["type"].endswith("_type") for problem in problems[:_MOST_TOLD]]
        lines = [line for _, line in sorted(zip(is_another, lines, strict=True), key=_first)]
    while len(lines) > 1 and len("; ".join(lines)) > _MOST_CHARS - len(_MORE):
        lines.pop()
    if len(lines) < count:
        lines.append(f"{count - len(lines)}{_MORE}")
    return RefusedInput("; ".join(lines))


def _first(pair: tuple[bool, str]) -> bool:
    return pair[0]


def _line(problem: dict[str, Any], sources: Mapping[str, str]) -> str:
    kind, field = problem["type"], ".".join(str(part) for part in problem["loc"])
    template = _EXPECTED.get(kind)
    expected = template.format(**problem.get("ctx", {})) if template else problem["msg"]
    if kind == "literal_error" and len(expected) > _MOST_CHARS_OF_A_LIST:
        expected = _nearest(problem["input"], _NAME.findall(expected))
    if kind == "missing":
        return f"{field} is not set"
    if not field:  # a check across sections, whose sentence names its fields itself
        return expected
    source = next((sources[name] for name in sources if f"{field}.".startswith(f"{name}.")), None)
    return f"{field} = {_value(problem['input'])}" + (f" {source}" if source else "") + f": {expected}"


def _nearest(given: Any, names: Sequence[str]) -> str:
    """Of more names than a line holds those that the user may have meant."""
    near = difflib.get_close_matches(_value(given), names, n=_MOST_NEAR, cutoff=0.0)
    return f"expected one of {len(names)} names, which --help lists; the nearest are {', '.join(map(repr, near))}"


def _value(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of more digits than Python writes
        text = f"a {type(value).__name__} that cannot be shown"
    return one_line(text, most=_MOST_CHARS_OF_A_VALUE)
