"""What every benchmark is made of: items read from a released file, answers to them, and ways to count these.

A benchmark is one module with a ``Benchmark`` in it, and one line in ``registry``.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from algorithms.records import MediaRef
from orchestrator.evaluation.figures import Counting
from orchestrator.evaluation.predictions import Prediction

Part = dict[str, str]
"""``{"type": "text", "text": words}``; an image or video of a draft is named, ``{"type": "image", "image": name}``, and
one of an item is ``{"type": "image"}``, in the order of its media."""
Asks = Literal["answer", "verdict", "rewards", "likelihoods"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemDraft:
    """A row that is fine as far as its media are."""

    id: str
    """As in the file; rows may share it."""
    question: tuple[Part, ...]
    """What is asked, with the options and the instruction where there are some."""
    responses: tuple[tuple[Part, ...], ...] = ()
    """To be compared, as the file lists them."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Text of each option by its letter."""
    truths: tuple[str, ...] = ()
    """All that count as right: a letter, yes or no, a text; of a pair the number of the better response, from 1."""
    category: str = ""
    group: str = ""
    """What the row belongs together with: an image, an instruction, a question in other rotations."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What counting or judging needs besides, as JSON has it."""
    unread: tuple[str, ...] = ()
    """Columns that nobody reads and nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A usable row of a benchmark."""

    row: int
    """1-based, as in the file."""
    digest: str
    """SHA-256 of all that the row says, its pictures included."""
    id: str
    question: tuple[Part, ...]
    responses: tuple[tuple[Part, ...], ...]
    media: tuple[MediaRef, ...]
    """Those of the question, then those of each response."""
    options: Mapping[str, str]
    truths: tuple[str, ...]
    category: str
    group: str
    meta: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Names the row: ids repeat, and a file of another version has other rows at the same place."""
        return f"{self.row:06d}-{self.digest[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An item and all that was said about it."""

    item: Item
    predictions: tuple[Prediction, ...]

    @property
    def failed(self) -> bool:
        """Whether the greedy answer, or what a judge says of it, is missing."""
        return any(p.status == "failed" for p in self.predictions if p.sample == 0 and not p.order)

    @property
    def text(self) -> str:
        """The greedy answer; empty where there is none, which no strict parser reads."""
        return next((p.text for p in self.predictions if p.sample == 0 and not p.order), "")

    @property
    def reply(self) -> str:
        """What a judge said of it; empty where none was asked."""
        return next((p.reply or "" for p in self.predictions if p.sample == 0 and not p.order), "")


CountAnswers = Callable[[Sequence[Answered], "CountOptions"], Counting]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountOptions:
    """How answers are counted."""

    way: str = "strict"
    reading: str = "tagged"
    """How verdicts are written, of ``verdict_readings.READINGS``."""
    votes: int | None = None
    """Samples that vote, odd; None is the greedy verdict."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Rows that a model is asked about, counted or not."""

    asks: Asks
    """What a model is asked for: an answer, which of two responses is better, or of each response a reward or how
    likely the model finds it."""
    read: Callable[[dict[str, Any], str], ItemDraft]
    """From a decoded row, and the last names of the file's path, to a draft; see ``rows``."""
    judge: Callable[["Item", str], str] | None = None
    """What a judge is asked about an answer to an item, where the figures are of what it says; "" asks nothing."""
    unpack: Callable[[Any], Sequence[Any] | None] | None = None
    """Rows of a file that is one JSON object; None where it holds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(Questions):
    """One benchmark."""

    count: CountAnswers
    ways: tuple[str, ...]
    """Those that ``count`` knows, ``strict`` first."""


def keys_of(answered: Sequence[Answered]) -> list[Hashable]:
    """Names of the questions, for figures whose unit is a row."""
    return [one.item.key for one in answered]
