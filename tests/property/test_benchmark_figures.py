"""What holds for any answers: figures, intervals, comparisons and votes."""

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.evaluation.figures import Counting, by_group, count, macro, mean
from orchestrator.evaluation.statistics import compare, intervals
from orchestrator.evaluation.voting import vote

_ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 5)), min_size=1, max_size=30)
_VERDICTS = st.lists(st.sampled_from(["1", "2", None]), min_size=1, max_size=15)


def _counted(rows: list[tuple[str, bool, int]]) -> Counting:
    groups, right = [group for group, _, _ in rows], [float(fine) for _, fine, _ in rows]
    figures = [
        mean("accuracy", right),
        *by_group("accuracy", right, groups),
        macro("macro", right, groups, of=("a", "b")),
    ]
    return count("strict", [unit for _, _, unit in rows], figures)


@given(_ROWS)
def test_a_figure_is_what_exact_arithmetic_gives(rows: list[tuple[str, bool, int]]) -> None:
    counted = _counted(rows)
    assert counted["accuracy"] == float(Fraction(sum(fine for _, fine, _ in rows), len(rows)))
    for group in {group for group, _, _ in rows}:
        own = [fine for one, fine, _ in rows if one == group]
        assert counted[f"accuracy/{group}"] == float(Fraction(sum(own), len(own)))


@given(_ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(rows: list[tuple[str, bool, int]], random: Random) -> None:
    shuffled = random.sample(rows, len(rows))
    one, other = _counted(rows), _counted(shuffled)
    assert {f.name: f.value for f in one.figures} == pytest.approx({f.name: f.value for f in other.figures})
    first, second = (intervals(c, seed=1, num_resamples=40) for c in (one, other))
    assert first.keys() == second.keys()
    for name, interval in first.items():
        assert second[name] == pytest.approx(interval)


@given(_ROWS)
def test_an_interval_lies_within_what_the_figure_can_be(rows: list[tuple[str, bool, int]]) -> None:
    for low, high in filter(None, intervals(_counted(rows), seed=0, num_resamples=40).values()):
        assert 0.0 <= low <= high <= 1.0


@given(_ROWS, st.lists(st.booleans(), min_size=30, max_size=30))
def test_a_comparison_the_other_way_round_is_its_mirror(rows: list[tuple[str, bool, int]], other: list[bool]) -> None:
    first = _counted(rows)
    second = _counted([(group, fine, unit) for (group, _, unit), fine in zip(rows, other, strict=False)])
    there, back = (compare(*pair, seed=0, num_resamples=40) for pair in ((first, second), (second, first)))
    for one, mirrored in zip(there, back, strict=True):
        assert one.difference == pytest.approx(-mirrored.difference)
        assert 1 / 41 <= one.p_value <= 1.0
        assert one.p_value == mirrored.p_value


@given(_VERDICTS, st.sampled_from(["1", "2", None]))
def test_a_vote_is_for_what_most_say(verdicts: list[str | None], greedy: str | None) -> None:
    k = len(verdicts) - (len(verdicts) % 2 == 0)
    found = vote(verdicts, greedy, k=k)
    ones, twos = (verdicts[:k].count(verdict) for verdict in ("1", "2"))
    assert found == ("1" if ones > twos else "2" if twos > ones else greedy)


@given(_VERDICTS)
def test_a_verdict_beside_unreadable_ones_only_wins(verdicts: list[str | None]) -> None:
    silent: list[str | None] = [None] * (len(verdicts) - len(verdicts) % 2)
    assert vote([*silent, "2"], "1", k=len(silent) + 1) == "2"
