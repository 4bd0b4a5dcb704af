"""What every kit is made of: a command line, and a reading of the files it leaves.

A kit more is a module with a ``KIT`` in it, and one line in ``registry``.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import GuardStop
from orchestrator.evaluation.predictions import Status

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class KitAsk:
    """What a kit is asked to do."""

    python: str
    """Interpreter of the environment that the kit is installed in."""
    url: str
    """Where the model is served, as OpenAI's clients take it."""
    model: str
    """Name that it is served under."""
    tasks: tuple[str, ...]
    """As the kit names them."""
    folder: Path
    """Where it writes."""
    max_new_tokens: int | None
    """None is as the kit has it for each task."""
    timeout_s: float
    """Longest wait of the kit for one answer, seconds."""
    parallel: int
    """Most requests at once."""
    args: tuple[str, ...]
    """Passed on to the kit, after all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KitRow:
    """One answer, as the kit tells it."""

    task: str
    part: str
    """Subset of the task; empty where there is none."""
    index: int
    """Of the row in its part, from 0."""
    sample: int = 0
    id: str = ""
    question: str = ""
    """Text of what was asked, with the kit's own instruction."""
    truth: str = ""
    text: str = ""
    """What the model said."""
    finish_reason: str = ""
    status: Status = "answered"
    scores: Mapping[str, float] = field(default_factory=dict)
    """What the kit makes of it, by the kit's own names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KitFigure:
    """A number that the kit reports."""

    task: str
    part: str
    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KitResults:
    """All that is read from a kit's files."""

    rows: tuple[KitRow, ...]
    figures: tuple[KitFigure, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """One kit."""

    package: str
    """As the package index names it."""
    version: str
    """Whose files are read."""
    needs: tuple[str, ...]
    """What its environment is made of."""
    command: Callable[[KitAsk], list[str]]
    read: Callable[[Path], KitResults]
    """From the folder that it wrote into.

    Raises:
        GuardStop: a file is missing or other than it was.
    """
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that it is run with."""


def read_json(path: Path) -> dict[str, Any]:
    """An object.

    Raises:
        GuardStop: it cannot be read as one.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GuardStop(f"{str(path)!r} cannot be read as JSON") from error
    if not isinstance(value, dict):
        raise GuardStop(f"{str(path)!r} holds no JSON object")
    return value


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with the words that name its line.

    Raises:
        GuardStop: a line cannot be read as one.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{str(path)!r}, line {number}"
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise GuardStop(f"{where} holds no JSON object")
                yield where, value
    except (OSError, ValueError, RecursionError) as error:
        raise GuardStop(f"{str(path)!r} cannot be read as JSON lines") from error


def wanted(value: Any, where: str, *names: str, kind: type[T]) -> T:
    """What stands under ``names``, one inside the other.

    Raises:
        GuardStop: it is missing or of another type: the kit has changed its files.
    """
    found: Any = value
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    if kind is float and isinstance(found, int):
        found = float(found)
    if not isinstance(found, kind):
        raise GuardStop(f"{where}: field {'.'.join(names)!r} is missing or no {kind.__name__}")
    return found


def numbers_of(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of the values that are numbers, or true or false."""
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def texts(parts: Sequence[Any]) -> str:
    """The words of a message's content, its pictures left out."""
    return "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and part.get("type") == "text")
