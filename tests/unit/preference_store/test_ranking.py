"""Rankings as people write them, and ranks that agree with pairs."""

import re

import pytest

from orchestrator.preference_store.pairs import pairs_by_rank
from orchestrator.preference_store.ranking import PreferenceCycle, parse_ranking, ranks_from_pairs


@pytest.mark.parametrize(
    ("ranking", "ranks"),
    [
        ("1>2=3>4", (1, 2, 2, 3)),
        ("4>1>3>2", (2, 4, 3, 1)),
        ("2=1", (1, 1)),
        (" 2 > 3=1 ", (2, 1, 2)),
        ("10>9>8>7>6>5>4>3>2>1", (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)),
    ],
)
def test_a_ranking_gives_each_response_its_rank(ranking: str, ranks: tuple[int, ...]) -> None:
    assert parse_ranking(ranking, num_responses=len(ranks)) == ranks


def test_a_ranking_with_a_tie_makes_five_pairs() -> None:
    # MM-RLHF T4, responses counted from 1.
    pairs = pairs_by_rank(parse_ranking("1>2=3>4", num_responses=4))
    assert [(p.chosen + 1, p.rejected + 1) for p in pairs] == [(1, 2), (1, 3), (1, 4), (2, 4), (3, 4)]


@pytest.mark.parametrize("ranking", ["", "1>2", "1>2>3>4", "1>2>2", "1>>2>3", "1<2<3", "A>B>C", "1>2,3", "01>2>3"])
def test_a_ranking_of_anything_but_the_responses_is_refused(ranking: str) -> None:
    message = f"\"{ranking}\", expected each of the numbers 1 to 3 once, joined by '>' and '='"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_ranking(ranking, num_responses=3)


@pytest.mark.parametrize(
    ("preferred", "ties", "ranks"),
    [
        ([(0, 1), (0, 2), (1, 2)], [], (1, 2, 3)),
        ([(0, 1), (0, 2)], [], (1, 2, 2)),  # nobody preferred one of the two: they tie
        ([(0, 1), (0, 2)], [(1, 2)], (1, 2, 2)),
        ([(0, 1), (1, 2)], [], (1, 2, 3)),  # 0 > 2 follows
        ([(0, 1), (2, 3)], [], (1, 2, 1, 2)),  # nobody compared 0 with 3, nor 2 with 1
        ([(0, 1), (1, 2), (3, 2)], [], (1, 2, 3, 1)),
        ([(0, 1)], [(1, 2), (2, 3)], (1, 2, 2, 2)),
        ([], [(0, 1)], (1, 1)),
    ],
)
def test_ranks_agree_with_every_pair(
    preferred: list[tuple[int, int]], ties: list[tuple[int, int]], ranks: tuple[int, ...]
) -> None:
    assert ranks_from_pairs(len(ranks), preferred=preferred, ties=ties) == ranks


@pytest.mark.parametrize(
    ("preferred", "ties", "steps"),
    [
        ([(0, 1), (1, 0)], [], {(0, 1), (1, 0)}),
        ([(3, 0), (0, 1), (1, 2), (2, 0)], [], {(0, 1), (1, 2), (2, 0)}),
        ([(0, 1)], [(1, 0)], {(0, 1)}),
        ([(0, 1), (2, 0)], [(1, 2)], {(0, 1), (2, 0)}),
    ],
)
def test_preferences_that_lead_back_have_no_ranks(
    preferred: list[tuple[int, int]], ties: list[tuple[int, int]], steps: set[tuple[int, int]]
) -> None:
    with pytest.raises(PreferenceCycle) as cycle:
        ranks_from_pairs(4, preferred=preferred, ties=ties)
    assert set(cycle.value.steps) == steps
