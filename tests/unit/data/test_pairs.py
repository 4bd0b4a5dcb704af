"""The view of pairs: which responses are preferred to which, and by how much."""

import re

import pytest

from orchestrator.data.pairs import Pair, pairs_by_rank, pairs_by_score, preference_pairs, tied_pairs, unpaired_reason
from orchestrator.data.records import Response


def _sides(pairs: list[Pair]) -> list[tuple[int, int]]:
    return [(pair.chosen, pair.rejected) for pair in pairs]


@pytest.mark.parametrize("score_margin", [-1, 0])
def test_ties_and_an_unscored_response_leave_two_pairs_at_gap_1(score_margin: float) -> None:
    """VL-RLHF acceptance 6: means 5, 4, 4 and one that cannot be read; the tie makes no pair."""
    pairs = pairs_by_score([5.0, 4.0, 4.0, None], score_margin=score_margin)
    assert pairs == [Pair(0, 1, 1.0), Pair(0, 2, 1.0)]


def test_only_the_largest_gap_is_kept_at_margin_minus_1() -> None:
    assert pairs_by_score([1.0, 5.0, 3.0], score_margin=-1) == [Pair(1, 0, 4.0)]


def test_a_gap_that_rounding_made_smaller_still_reaches_the_margin() -> None:
    assert 13 / 3 - 10 / 3 < 1
    assert _sides(pairs_by_score([13 / 3, 10 / 3], score_margin=1)) == [(0, 1)]
    assert pairs_by_score([13 / 3, 10 / 3], score_margin=1 + 1e-9) == []


def test_sums_that_differ_by_rounding_alone_tie() -> None:
    assert 0.1 + 0.2 != 0.3
    assert pairs_by_score([0.1 + 0.2, 0.3], score_margin=0) == []


def test_gaps_that_differ_by_rounding_alone_are_both_the_largest() -> None:
    scores = [0.1 + 0.2, 0.3, 0.0]  # 0.3 more than the last, but for rounding
    assert _sides(pairs_by_score(scores, score_margin=-1)) == [(0, 2), (1, 2)]


def test_tiny_scores_are_no_ties() -> None:
    assert _sides(pairs_by_score([1e-20, 3e-20], score_margin=0)) == [(1, 0)]


@pytest.mark.parametrize("score_margin", [-0.5, -2.0, float("nan")])
def test_a_margin_that_means_nothing_is_refused(score_margin: float) -> None:
    message = f"score_margin = {score_margin}: must be at least 0, or -1 for the largest gap only"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pairs_by_score([1.0, 2.0], score_margin=score_margin)


def test_ranks_with_a_tie_give_every_strict_preference() -> None:
    # MM-RLHF T4: 1 > 2 = 3 > 4.
    assert _sides(pairs_by_rank([1, 2, 2, 3])) == [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]
    assert len(pairs_by_rank([4, 1, 3, 2])) == 6


def test_two_equal_texts_are_no_pair_whatever_their_scores() -> None:
    same = [Response(text="a", score=1.0), Response(text="a", score=5.0), Response(text="b", score=2.0)]
    assert _sides(preference_pairs(same, score_margin=0)) == [(2, 0), (1, 2)]


@pytest.mark.parametrize(
    ("responses", "score_margin", "reason"),
    [
        ([("a", 1.0), ("b", 2.0)], 0, None),
        ([("a", 1.0)], 0, "it has 1 responses, a pair needs 2"),
        ([("a", 1.0), ("b", None)], 0, "1 of its 2 responses have a rank or a score, a pair needs 2"),
        ([("a", 1.0), ("a", 2.0)], 0, "all its responses are the same text"),
        ([("a", 3.0), ("b", 3.0)], -1, "all its responses tie"),
        ([("a", 3.0), ("b", 4.0)], 2, "no two of its responses are score_margin = 2 apart"),
    ],
)
def test_a_row_without_pairs_says_why(
    responses: list[tuple[str, float | None]], score_margin: float, reason: str | None
) -> None:
    made = [Response(text=text, score=score) for text, score in responses]
    assert unpaired_reason(made, score_margin=score_margin) == reason


def _ranked(*ranks: int | None, text: str = "text {}") -> list[Response]:
    return [Response(text=text.format(k), rank=rank) for k, rank in enumerate(ranks)]


@pytest.mark.parametrize(
    ("responses", "ties"),
    [
        (_ranked(1, 2, 2, 3), [(1, 2)]),
        (_ranked(1, 1, 1), [(0, 1), (0, 2), (1, 2)]),
        (_ranked(1, None, None, 2), []),
        (_ranked(2, 1, 2, None), [(0, 2)]),
        (_ranked(1, 1, text="the same"), []),
        ([Response(text="a", score=0.1 + 0.2), Response(text="b", score=0.3), Response(text="c")], [(0, 1)]),
        ([Response(text="a", score=1e-20), Response(text="b", score=3e-20)], []),
        # With ranks, scores say nothing: as for pairs.
        ([Response(text="a", score=1.0, rank=1), Response(text="b", score=1.0, rank=2)], []),
        ([], []),
    ],
)
def test_what_somebody_found_equally_good_ties(responses: list[Response], ties: list[tuple[int, int]]) -> None:
    assert tied_pairs(responses) == ties
    pairs = {frozenset(side) for side in _sides(preference_pairs(responses, score_margin=0))}
    assert not pairs & {frozenset(tie) for tie in ties}
