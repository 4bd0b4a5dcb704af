"""Figures: numbers that a step reports. Whoever computes one says here what it means, and how shares of it add up."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Figure:
    """What is known of a figure before it has a value."""

    name: str
    """As in ``metrics.jsonl``, e.g. ``policy/entropy``."""
    meaning: str
    """One sentence for people, with its unit; a line of docs/metrics.md."""
    title: str = ""
    """Over the chart of a report that it is drawn in, with others of the same title; empty draws none."""
    label: str = ""
    """Of its line there; empty is the last part of its name."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A sum over so many counted things; nothing counted has no mean."""

    total: float
    count: float

    def __add__(self, other: Self) -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float | None:
        """None where nothing was counted."""
        return self.total / self.count if self.count else None


@dataclass(frozen=True, slots=True)
class Sum:
    """Shares of a whole."""

    total: float

    def __add__(self, other: Self) -> "Sum":
        return Sum(self.total + other.total)

    @property
    def value(self) -> float:
        """The whole."""
        return self.total


@dataclass(frozen=True, slots=True)
class Most:
    """The largest of all."""

    total: float

    def __add__(self, other: Self) -> "Most":
        return Most(max(self.total, other.total))

    @property
    def value(self) -> float:
        """The largest."""
        return self.total


Tally = Mean | Sum | Most
Tallies = dict[str, Tally]
"""By a figure's name: a share of it that adds up, over micro-batches and ranks, to the whole."""


def added(shares: Iterable[Mapping[str, Tally]]) -> Tallies:
    """All shares together; a figure that only some have is of those.

    Raises:
        TypeError: one name stands for two kinds of shares.
    """
    whole: Tallies = {}
    for share in shares:
        for name, tally in share.items():
            before = whole.get(name)
            if before is not None and type(before) is not type(tally):
                raise TypeError(f"{name} is a {type(before).__name__} and a {type(tally).__name__}")
            whole[name] = tally if before is None else before + tally  # type: ignore[operator]
    return whole


def values(tallies: Mapping[str, Tally]) -> dict[str, float]:
    """What the figures come to; one of which nothing was counted is left out."""
    return {name: value for name, tally in tallies.items() if (value := tally.value) is not None}
