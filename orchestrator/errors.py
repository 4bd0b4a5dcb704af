"""The two ways a run ends early on purpose, and their exit codes; a failed validation is one of them."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

_MOST_CHARS = 2000
_MOST_CHARS_OF_A_VALUE = 200
_MOST_TOLD = 20
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
        return one_line(super().__str__(), most=_MOST_CHARS)


class GuardStop(Exception):
    """A guard stopped the run: one line with the reason; a checkpoint is left. Exit code 3."""

    def __str__(self) -> str:
        return one_line(super().__str__(), most=_MOST_CHARS)


def one_line(text: str, *, most: int) -> str:
    """A message without line breaks and no longer than ``most``, its middle left out: who and why are at its ends."""
    line = " ".join(text.splitlines())
    return line if len(line) <= most else f"{line[: most * 2 // 3]} ... {line[-(most // 3) :]}"


def refusal(error: ValidationError, *, sources: Mapping[str, str] | None = None) -> RefusedInput:
    """Turn a pydantic failure into the one line a person needs; several problems are joined by ``;``, of very many the
    first is told.

    Args:
        sources: Where each value came from by dotted name: ``in a.toml`` or ``on the command line``.
    """
    problems, count = error.errors(include_url=False), error.error_count()
    told = problems if count <= _MOST_TOLD else problems[:1]
    lines = [_line(dict(problem), sources or {}) for problem in told]
    if len(told) < count:
        lines.append(f"{count - len(told)} more problems")
    return RefusedInput("; ".join(lines))


def _line(problem: dict[str, Any], sources: Mapping[str, str]) -> str:
    kind, field = problem["type"], ".".join(str(part) for part in problem["loc"])
    template = _EXPECTED.get(kind)
    expected = template.format(**problem.get("ctx", {})) if template else problem["msg"]
    if kind == "missing":
        return f"{field} is not set"
    if not field:  # a check across sections, whose sentence names its fields itself
        return expected
    source = next((sources[name] for name in sources if f"{field}.".startswith(f"{name}.")), None)
    return (
        f"{field} = {one_line(repr(problem['input']), most=_MOST_CHARS_OF_A_VALUE)}"
        + (f" {source}" if source else "")
        + f": {expected}"
    )
