"""How sure a figure is, and whether two models differ: by drawing the same questions again.

Intervals are percentiles of the bootstrap over units (questions, or ids with all their pairs). Two models that answered
the same questions are compared in pairs: an interval of their difference from the same draws for both, and a p-value of
the permutation that gives each unit's answers to either model.

Sources: Efron and Tibshirani 1993, chapters 13 and 15; paired draws for systems that share a test set: Koehn 2004,
https://aclanthology.org/W04-3250; a p-value of random permutations is (1 + hits) / (1 + permutations), never 0: Phipson
and Smyth 2010, https://arxiv.org/abs/1603.05766.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.evaluation.figures import Counting, Figure

Interval = tuple[float, float]
NUM_RESAMPLES = 10_000
_PERCENT = (2.5, 97.5)
_CHUNK_NUMBERS = 4_000_000
"""Numbers drawn at a time, so that memory does not grow with the benchmark."""
_TOLERANCE = 1e-12
"""Differences that are the same but for rounding count as equal, which makes a p-value larger, never smaller."""


def intervals(counting: Counting, *, seed: int, num_resamples: int = NUM_RESAMPLES) -> dict[str, Interval | None]:
    """The middle 95 % of each figure over units drawn again with replacement; None where no draw defines it.

    A draw in which something that a figure is taken of is missing, as all questions of a small category, is left out of
    that figure. One that is only printed, of whose questions nothing is known, has none.

    Args:
        seed: The same answers and seed give the same intervals, whatever the order of the units.
    Raises:
        ValueError: ``num_resamples`` below 1.
    """
    order = _order(counting)
    values = np.concatenate(
        [_values(counting.figures, order, times) for times in _times(len(order), seed, num_resamples)]
    )
    return {figure.name: _middle(values[:, i]) if figure.terms else None for i, figure in enumerate(counting.figures)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One figure of two models on the same units."""

    name: str
    first: float
    second: float
    difference: float
    """Second less first."""
    interval: Interval | None
    """Of the difference."""
    p_value: float
    """Two-sided: how often giving each unit's answers to either model at random differs at least as much."""


def compare(
    first: Counting, second: Counting, *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> tuple[Comparison, ...]:
    """Compare two models figure by figure, for the figures that both have.

    Raises:
        ValueError: they were counted in two ways, or their units are not the same; ``num_resamples`` below 1.
    """
    if first.way != second.way:
        raise ValueError(f"counted in two ways, {first.way!r} and {second.way!r}")
    if other := set(first.units) ^ set(second.units):
        raise ValueError(f"{len(other)} questions were answered by one of the two models only, {min(other)!r} is one")
    names = {figure.name for figure in second.figures}
    ours = [figure for figure in first.figures if figure.name in names]
    theirs = [next(f for f in second.figures if f.name == one.name) for one in ours]
    orders = _order(first), _order(second)
    drawn = np.concatenate(
        [
            _values(theirs, orders[1], times) - _values(ours, orders[0], times)
            for times in _times(len(first.units), seed, num_resamples)
        ]
    )
    p_values = _permuted(ours, theirs, orders, seed, num_resamples)
    return tuple(
        Comparison(
            name=one.name,
            first=one.value,
            second=other.value,
            difference=other.value - one.value,
            interval=_middle(drawn[:, i]),
            p_value=p_values[i],
        )
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True))
    )


def _permuted(
    first: Sequence[Figure], second: Sequence[Figure], orders: tuple[np.ndarray, np.ndarray], seed: int, count: int
) -> list[float]:
    """P-values; the swaps come from another stream than the draws."""
    rng = np.random.default_rng([seed, 1])
    num_units = len(orders[0])
    whole = np.ones((1, num_units))
    seen = np.abs(_values(second, orders[1], whole) - _values(first, orders[0], whole))
    hits = np.zeros(len(first), dtype=np.int64)
    for size in _chunks(num_units, count):
        swapped = rng.integers(0, 2, size=(size, num_units)).astype(np.float64)
        kept = 1.0 - swapped
        ours = _mixed(first, second, orders, kept, swapped)
        theirs = _mixed(first, second, orders, swapped, kept)
        # A permutation that leaves a figure undefined counts as one that differs as much.
        differences = np.nan_to_num(np.abs(theirs - ours), nan=np.inf)
        hits += (differences >= seen - _TOLERANCE).sum(axis=0)
    return [float((1 + hit) / (1 + count)) for hit in hits]


def _mixed(
    first: Sequence[Figure],
    second: Sequence[Figure],
    orders: tuple[np.ndarray, np.ndarray],
    own: np.ndarray,
    other: np.ndarray,
) -> np.ndarray:
    """Figures of units taken from the first model ``own`` times and from the second ``other`` times."""
    columns = []
    for one, two in zip(first, second, strict=True):
        total = np.zeros(len(own))
        for a, b in zip(one.terms, two.terms, strict=True):
            part = own @ a.part[orders[0]] + other @ b.part[orders[1]]
            whole = own @ a.whole[orders[0]] + other @ b.whole[orders[1]]
            total = total + a.scale * _quotient(part, whole, defined=bool(a.whole.any() or b.whole.any()))
        columns.append(total)
    return np.stack(columns, axis=1) if columns else np.zeros((len(own), 0))


def _values(figures: Sequence[Figure], order: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Figures ``[draws, F]`` of units taken ``times``, ``[draws, U]``; NaN where a draw does not define one."""
    columns = []
    for figure in figures:
        total = np.zeros(len(times))
        for term in figure.terms:
            part, whole = times @ term.part[order], times @ term.whole[order]
            total = total + term.scale * _quotient(part, whole, defined=bool(term.whole.any()))
        columns.append(total)
    return np.stack(columns, axis=1) if columns else np.zeros((len(times), 0))


def _quotient(part: np.ndarray, whole: np.ndarray, *, defined: bool) -> np.ndarray:
    """part / whole; where whole is 0, NaN, or 0 of what is nothing in every draw."""
    missing = np.nan if defined else 0.0
    return np.divide(part, whole, out=np.full_like(part, missing), where=whole != 0)


def _order(counting: Counting) -> np.ndarray:
    """Of the units by name, so that no figure depends on the order of the rows."""
    return np.array(sorted(range(len(counting.units)), key=counting.units.__getitem__), dtype=np.int64)


def _times(num_units: int, seed: int, num_resamples: int) -> Iterator[np.ndarray]:
    """How often each unit is drawn, ``[draws, U]`` at a time."""
    if num_resamples < 1:
        raise ValueError(f"num_resamples = {num_resamples} must be at least 1")
    rng = np.random.default_rng(seed)
    for size in _chunks(num_units, num_resamples):
        if num_units == 0:
            yield np.zeros((size, 0))
            continue
        drawn = rng.integers(0, num_units, size=(size, num_units))
        drawn += np.arange(size)[:, None] * num_units
        yield np.bincount(drawn.ravel(), minlength=size * num_units).reshape(size, num_units).astype(np.float64)


def _chunks(num_units: int, count: int) -> Iterator[int]:
    size = max(1, _CHUNK_NUMBERS // max(1, num_units))
    for start in range(0, count, size):
        yield min(size, count - start)


def _middle(values: np.ndarray) -> Interval | None:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, _PERCENT)
    return float(low), float(high)
