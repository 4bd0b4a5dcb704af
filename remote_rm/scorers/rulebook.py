"""Which rules score a response: ours, or the release's for comparison."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from remote_rm.scorers import compat
from remote_rm.scorers.accuracy import accuracy_score, parse_answer
from remote_rm.scorers.format import format_score
from remote_rm.scorers.slots import answer_sentence, reasoning_of, tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulebook:
    """The three functions that turn a response into scores and a question to the judge."""

    name: Literal["strict", "compat"]
    """What ``--scoring`` calls it."""
    format: Callable[[str], float]
    accuracy: Callable[[str, str], float]
    """From response and label."""
    slots: Callable[[str], tuple[str, str]]
    """Reasoning tail and answer sentence of a response whose answer is right."""


def _strict_slots(response: str) -> tuple[str, str]:
    return tail(reasoning_of(response)), answer_sentence(parse_answer(response) or "")


STRICT = Rulebook(name="strict", format=format_score, accuracy=accuracy_score, slots=_strict_slots)
COMPAT = Rulebook(
    name="compat",
    format=compat.released_format,
    accuracy=lambda response, label: compat.released_accuracy(response, (label,)),
    slots=compat.released_slots,
)
