"""Rankings as people write them, and the order that pairs tell."""

import re

import pytest

from orchestrator.data.pairs import PreferenceCycle, order_from_pairs, pairs_by_rank, parse_ranking


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
        ([(0, 1), (1, 2)], [], (1, 2, 3)),  # 0 > 2 follows
        ([(0, 1), (0, 2)], [(1, 2)], (1, 2, 2)),
        ([(0, 1)], [(1, 2), (2, 3)], (1, 2, 2, 2)),
        ([], [(0, 1)], (1, 1)),
    ],
)
def test_an_order_in_which_any_two_compare_or_tie_has_ranks(
    preferred: list[tuple[int, int]], ties: list[tuple[int, int]], ranks: tuple[int, ...]
) -> None:
    order = order_from_pairs(len(ranks), preferred=preferred, ties=ties)
    assert order.ranks == ranks
    assert order.num_pairs == len(pairs_by_rank(ranks))


@pytest.mark.parametrize(
    ("preferred", "ties", "preferred_to"),
    [
        ([(0, 1), (0, 2)], [], ((1, 2), (), ())),  # nobody compared 1 with 2, and nobody said that they tie
        ([(0, 1), (2, 3)], [], ((1,), (), (3,), ())),
        ([(0, 1), (2, 3), (3, 4)], [], ((1,), (), (3, 4), (4,), ())),
        ([(0, 1), (1, 2), (3, 2)], [], ((1, 2), (2,), (), (2,))),
        ([(0, 1), (2, 3)], [(1, 2)], None),  # 0 > 1 = 2 > 3, so that it is total
        ([(0, 1), (3, 4)], [(1, 2)], ((1, 2), (), (), (4,), ())),
        ([], [], ((), ())),
    ],
)
def test_two_that_nobody_compared_are_no_pair_and_do_not_tie(
    preferred: list[tuple[int, int]],
    ties: list[tuple[int, int]],
    preferred_to: tuple[tuple[int, ...], ...] | None,
) -> None:
    order = order_from_pairs(len(preferred_to or range(4)), preferred=preferred, ties=ties)
    assert (order.ranks is None) == (preferred_to is not None)
    assert preferred_to is None or order.preferred_to == preferred_to
    assert {(i, j) for i, others in enumerate(order.tied_with) for j in others} == {*ties, *((j, i) for i, j in ties)}


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
        order_from_pairs(4, preferred=preferred, ties=ties)
    assert set(cycle.value.steps) == steps
