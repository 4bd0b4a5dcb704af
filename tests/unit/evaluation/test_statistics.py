"""Figures, intervals and comparisons on a few questions, with the numbers worked out beside them."""

import math

import numpy as np
import pytest

from orchestrator.evaluation.figures import Counting, Figure, by_group, count, macro, mean, ratio
from orchestrator.evaluation.statistics import compare, intervals
from orchestrator.evaluation.voting import vote


def _counted(right: list[float], units: list[str] | None = None, way: str = "strict") -> Counting:
    return count(way, units or [str(i) for i in range(len(right))], [mean("accuracy", right)])


def test_figures_are_ratios_of_sums() -> None:
    right, groups = [1.0, 1.0, 0.0, 1.0], ["a", "a", "a", "b"]
    counted = count(
        "strict",
        list("wxyz"),
        [
            mean("accuracy", right),
            *by_group("accuracy", right, groups),
            macro("macro", right, groups, of=("a", "b", "c")),
        ],
        counts={"rows": 4},
    )
    assert counted["accuracy"] == 3 / 4
    assert (counted["accuracy/a"], counted["accuracy/b"]) == (2 / 3, 1.0)
    # c has no rows and counts as 0: (2/3 + 1 + 0) / 3.
    assert counted["macro"] == pytest.approx((2 / 3 + 1) / 3, abs=1e-15)
    assert counted.units == ("w", "x", "y", "z")
    with pytest.raises(KeyError):
        counted["f1"]


def test_rows_of_one_unit_are_added_up() -> None:
    counted = _counted([1, 0, 1], ["id1", "id1", "id2"])
    (figure,) = counted.figures
    assert counted.units == ("id1", "id2")
    assert figure.terms[0].part.tolist() == [1.0, 1.0]
    assert figure.terms[0].whole.tolist() == [2.0, 1.0]
    assert (counted["accuracy"], figure.weight) == (2 / 3, 3.0)


def test_a_number_that_is_not_finite_or_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="'accuracy' has a number that is not finite"):
        _counted([1.0, math.nan])
    with pytest.raises(ValueError, match="'accuracy' has 1 numbers for 2 rows"):
        _counted([1.0], ["a", "b"])


def test_what_the_release_prints_is_shown_and_the_exact_number_is_kept() -> None:
    figure = Figure("relative", (ratio([6.0], [9.0], scale=100.0),), printed=66.7)
    assert (figure.shown, figure.value) == (66.7, pytest.approx(200 / 3))


def test_the_interval_of_a_mean_is_near_the_one_that_theory_gives() -> None:
    """300 of 400 right: 0.75 ± 1.96 sqrt(0.75 · 0.25 / 400) = 0.75 ± 0.0424."""
    low, high = intervals(_counted([1.0] * 300 + [0.0] * 100), seed=0)["accuracy"] or (0, 0)
    assert low == pytest.approx(0.75 - 0.0424, abs=0.005)
    assert high == pytest.approx(0.75 + 0.0424, abs=0.005)


def test_questions_that_depend_on_each_other_widen_the_interval() -> None:
    right = [float(i % 2) for i in range(40) for _ in range(5)]
    alone = intervals(_counted(right), seed=0)["accuracy"] or (0, 0)
    together = intervals(_counted(right, [str(i // 5) for i in range(200)]), seed=0)["accuracy"] or (0, 0)
    # Five equal answers an id: the variance is five times as large.
    assert (together[1] - together[0]) / (alone[1] - alone[0]) == pytest.approx(math.sqrt(5), rel=0.1)


def test_intervals_depend_on_the_seed_and_not_on_the_order_of_the_rows() -> None:
    right, units = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0], list("abcdefg")
    first = intervals(_counted(right, units), seed=3, num_resamples=500)
    assert intervals(_counted(right[::-1], units[::-1]), seed=3, num_resamples=500) == first
    assert intervals(_counted(right, units), seed=4, num_resamples=500) != first


def test_draws_without_a_category_say_nothing_of_it() -> None:
    right, groups = [1.0, 0.0, 1.0, 0.0], ["a", "a", "a", "b"]
    counted = count(
        "strict", list("wxyz"), [*by_group("accuracy", right, groups), mean("none", right, among=[False] * 4)]
    )
    found = intervals(counted, seed=0, num_resamples=200)
    assert found["accuracy/b"] == (0.0, 0.0)
    assert found["none"] == (0.0, 0.0)
    assert intervals(count("strict", [], [mean("accuracy", [])]), seed=0, num_resamples=3) == {"accuracy": (0.0, 0.0)}


def test_memory_of_many_draws_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    right = [float(i % 3 == 0) for i in range(50)]
    whole = intervals(_counted(right), seed=0, num_resamples=100)
    monkeypatch.setattr("orchestrator.evaluation.statistics._CHUNK_NUMBERS", 120)
    parted = intervals(_counted(right), seed=0, num_resamples=100)
    assert parted["accuracy"] == pytest.approx(whole["accuracy"], abs=0.05)


def test_the_same_answers_do_not_differ() -> None:
    (same,) = compare(_counted([1, 0, 1]), _counted([1, 0, 1]), seed=0, num_resamples=50)
    assert (same.difference, same.interval, same.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_a_difference_that_chance_hardly_makes() -> None:
    """One model right on 12 questions that the other misses, equal elsewhere: 2 of 2^12 swaps differ as much."""
    worse, better = [0.0] * 12 + [1.0] * 30, [1.0] * 42
    (found,) = compare(_counted(worse), _counted(better), seed=0, num_resamples=20_000)
    assert found.difference == pytest.approx(12 / 42)
    assert found.p_value == pytest.approx(2 / 2**12, abs=5e-4)
    assert found.interval is not None
    assert 0.0 < found.interval[0] < found.difference < found.interval[1]


def test_pairs_see_what_two_intervals_do_not() -> None:
    """Both near 0.5, and the second never worse: paired draws tell them apart where the intervals overlap."""
    first = [float(i % 2) for i in range(200)]
    second = [1.0 if i < 24 else right for i, right in enumerate(first)]
    one, other = (intervals(_counted(r), seed=0)["accuracy"] or (0, 0) for r in (first, second))
    assert one[1] > other[0]
    (found,) = compare(_counted(first), _counted(second), seed=0)
    assert found.p_value < 0.01


def test_only_the_same_questions_counted_the_same_way_are_compared() -> None:
    with pytest.raises(ValueError, match=r"2 questions were answered by one of the two models only, 'b' is one"):
        compare(_counted([1, 1], ["a", "b"]), _counted([1, 1], ["a", "c"]), seed=0)
    with pytest.raises(ValueError, match=r"counted in two ways, 'strict' and 'official'"):
        compare(_counted([1]), _counted([1], way="official"), seed=0)
    with pytest.raises(ValueError, match="num_resamples = 0"):
        intervals(_counted([1]), seed=0, num_resamples=0)


def test_p_values_are_right_under_chance() -> None:
    """Of models that differ by chance alone, at most about a tenth have a p-value below 0.1."""
    rng = np.random.default_rng(0)
    low = 0
    for seed in range(200):
        first, second = (rng.integers(0, 2, size=30).astype(float).tolist() for _ in range(2))
        (found,) = compare(_counted(first), _counted(second), seed=seed, num_resamples=199)
        low += found.p_value <= 0.1
    assert low <= 32  # 20 expected; a binomial is above 32 less than once in 200


def test_votes() -> None:
    assert vote(["1", "2", "2"], "1", k=3) == "2"
    assert vote(["1", "2", "2"], "2", k=1) == "1"
    # Unreadable is no vote: one against one, so the greedy verdict decides.
    assert vote(["1", None, "2"], "2", k=3) == "2"
    assert vote([None, None, None], "1", k=3) == "1"
    assert vote([None, None, "2"], None, k=3) == "2"
    assert vote(["1", None, "2"], None, k=3) is None
    for k, message in ((2, "votes = 2 must be odd"), (0, "votes = 0"), (5, "votes = 5, but 3 samples")):
        with pytest.raises(ValueError, match=message):
            vote(["1", "2", "2"], "1", k=k)
