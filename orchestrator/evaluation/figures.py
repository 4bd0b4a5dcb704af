"""Figures of benchmarks: scaled ratios of sums over questions, added up.

So one bootstrap and one comparison (``statistics``) serve all of them:

    accuracy        Σ right / Σ 1                          F1    Σ 2 TP / Σ (2 TP + FP + FN)
    macro average   Σ over categories of 1/n Σ right / Σ 1
    MME's score     100 Σ right / Σ 1 + 100 Σ both right / Σ images
    relative score  100 Σ second scores / Σ first scores

Invariant: what is drawn again for an interval, the unit, is a question, or all questions that depend on each other.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Ratio:
    """``scale`` Σ part / Σ whole."""

    part: np.ndarray
    """float64 ``[N]``, a number a row; a unit of the rows in a ``Counting``."""
    whole: np.ndarray
    scale: float = 1.0

    @property
    def value(self) -> float:
        """The ratio; 0 of nothing: the counts tell it from a 0 of many."""
        whole = self.whole.sum()
        return float(self.scale * (self.part.sum() / whole)) if whole else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """A number of a benchmark."""

    name: str
    """Lower case, parts after a slash: ``accuracy``, ``accuracy/general``."""
    terms: tuple[Ratio, ...]
    printed: float | None = None
    """What the released script prints where its rounding makes that another number."""
    less_is_better: bool = False

    @property
    def value(self) -> float:
        """The sum of the terms."""
        return math.fsum(term.value for term in self.terms)

    @property
    def shown(self) -> float:
        """``printed`` where there is one."""
        return self.value if self.printed is None else self.printed

    @property
    def weight(self) -> float:
        """What the first ratio is taken of, a count of rows for most figures; 0 where there is no ratio."""
        return float(self.terms[0].whole.sum()) if self.terms else 0.0


@dataclass(frozen=True, slots=True)
class Worth:
    """What a row or a unit counts for in a figure: in most of them 1 if it is right, 0 if it is wrong."""

    figure: str
    value: float
    less_is_better: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counting:
    """What one way of counting makes of a benchmark's answers."""

    way: str
    """``strict`` is ours; any other name is a published way."""
    units: tuple[str, ...]
    """Names of what is drawn again for an interval, in the order of the figures' numbers."""
    figures: tuple[Figure, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of rows: how many there are, how many could not be read."""
    notes: tuple[str, ...] = ()
    """What keeps the figures from being compared with published ones, a sentence each."""
    of_rows: tuple[Worth | None, ...] = ()
    """What each row counts for, see ``worths``."""

    def __getitem__(self, name: str) -> float:
        """The value of a figure, as it is shown.

        Raises:
            KeyError: there is none of this name.
        """
        for figure in self.figures:
            if figure.name == name:
                return figure.shown
        raise KeyError(name)


def count(
    way: str,
    units: Sequence[Hashable],
    figures: Iterable[Figure],
    *,
    counts: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> Counting:
    """Gather figures whose numbers are given row by row into sums over units.

    Args:
        units: Of each row, the unit it belongs to; rows of the same unit are drawn together.
        figures: Every ratio has a number a row.
    Raises:
        ValueError: a ratio has another length than ``units``, or a number that is not finite.
    """
    index: dict[Hashable, int] = {}
    named = list(figures)
    places = np.array([index.setdefault(unit, len(index)) for unit in units], dtype=np.int64)
    return Counting(
        way=way,
        units=tuple(map(str, index)),
        figures=tuple(_gathered(figure, places, len(index)) for figure in named),
        counts=dict(counts or {}),
        notes=tuple(notes),
        of_rows=worths(named, len(places)),
    )


def worths(figures: Sequence[Figure], num_rows: int) -> tuple[Worth | None, ...]:
    """What each row counts for in the first figure that is taken of it; None of a row in no figure.

    A figure of several ratios is worth their mean, without their scales.
    """
    found: list[Worth | None] = [None] * num_rows
    for figure in figures:
        for i in [i for i, one in enumerate(found) if one is None]:
            shares = [float(term.part[i] / term.whole[i]) for term in figure.terms if term.whole[i]]
            if shares:
                found[i] = Worth(figure.name, math.fsum(shares) / len(shares), figure.less_is_better)
    return tuple(found)


def ratio(part: Iterable[float], whole: Iterable[float] | None = None, *, scale: float = 1.0) -> Ratio:
    """A ratio of numbers row by row; without ``whole`` the mean over all rows."""
    numbers = np.array(list(part), dtype=np.float64)
    over = np.ones_like(numbers) if whole is None else np.array(list(whole), dtype=np.float64)
    return Ratio(numbers, over, scale)


def mean(name: str, values: Sequence[float], *, among: Sequence[bool] | None = None, scale: float = 1.0) -> Figure:
    """The mean of ``values``, over the rows ``among`` which it is taken; over all without."""
    return Figure(name, (masked(values, among, scale=scale),))


def masked(values: Sequence[float], among: Sequence[bool] | None, *, scale: float = 1.0) -> Ratio:
    """The mean of ``values`` over the rows that are True in ``among``, as a ratio over all rows."""
    if among is None:
        return ratio(values, scale=scale)
    chosen = np.array(among, dtype=bool)
    return Ratio(np.where(chosen, np.array(values, dtype=np.float64), 0.0), chosen.astype(np.float64), scale)


def by_group(
    name: str,
    values: Sequence[float],
    groups: Sequence[str],
    *,
    among: Sequence[bool] | None = None,
    scale: float = 1.0,
) -> list[Figure]:
    """``name/group`` for each group in the order of their names, over the rows ``among`` which it is taken."""
    counted = [True] * len(groups) if among is None else among
    return [
        mean(
            f"{name}/{group}",
            values,
            among=[a and g == group for a, g in zip(counted, groups, strict=True)],
            scale=scale,
        )
        for group in sorted(set(groups))
    ]


def macro(
    name: str,
    values: Sequence[float],
    groups: Sequence[str],
    *,
    of: Sequence[str],
    among: Sequence[bool] | None = None,
    scale: float = 1.0,
) -> Figure:
    """The mean over the groups ``of`` of their means; a group without rows counts as 0."""
    counted = [True] * len(groups) if among is None else among
    chosen = [[a and one == group for a, one in zip(counted, groups, strict=True)] for group in of]
    return Figure(name, tuple(masked(values, own, scale=scale / len(of)) for own in chosen))


def _gathered(figure: Figure, places: np.ndarray, num_units: int) -> Figure:
    terms = []
    for term in figure.terms:
        for numbers in (term.part, term.whole):
            if len(numbers) != len(places):
                raise ValueError(f"figure {figure.name!r} has {len(numbers)} numbers for {len(places)} rows")
            if not np.isfinite(numbers).all():
                raise ValueError(f"figure {figure.name!r} has a number that is not finite")
        part, whole = (np.bincount(places, weights=n, minlength=num_units) for n in (term.part, term.whole))
        terms.append(replace(term, part=part, whole=whole))
    return replace(figure, terms=tuple(terms))
