"""What votes and rewards come to: winners, ties, confidence, and what cannot be read."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.evaluation.benchmarks.items import Answered, Item
from orchestrator.evaluation.predictions import Prediction
from orchestrator.judging.showing import lines_of
from orchestrator.judging.verdicts import Compared, compared, ranked, record

_UNREADABLE = "both are fine"


def _item(num_responses: int) -> Item:
    return Item(
        row=3,
        digest="d",
        id="a",
        question=({"type": "text", "text": "q"},),
        responses=tuple(({"type": "text", "text": f"r{n}"},) for n in range(num_responses)),
        media=(),
        options={},
        truths=(),
        category="",
        group="",
        meta={},
    )


def _told(texts: Mapping[str, Sequence[str | None]], *, votes: int | None) -> Compared:
    """Of each order the number that is shown as better, greedy first; None cannot be read."""
    predictions = tuple(
        Prediction(row=3, digest="d", order=order, sample=number, text=_verdict(said))
        for order, own in texts.items()
        for number, said in enumerate(own)
    )
    item = _item(max(int(number) for order in texts for number in order))
    return compared(Answered(item=item, predictions=predictions), form="tagged", votes=votes)


def _verdict(said: str | None) -> str:
    return _UNREADABLE if said is None else f"<think> so </think> <answer> {said} </answer>"


def test_votes_of_both_orders_count_and_the_greedy_ones_do_not() -> None:
    told = _told({"12": "2221", "21": ["2", "1", "1", None]}, votes=3)
    (pair,) = told.pairs
    assert (pair.votes, pair.unreadable, told.unreadable) == ((1, 4), 1, 1)
    assert (told.winner, told.tied, told.confidence) == (2, (), 4 / 5)
    assert [one.verdict for one in told.judgements] == [2, 2, 2, 1, 1, 2, 2, None]
    assert list(lines_of(_item(2), told, with_texts=False)) == [
        "row 3 (a): response 2 is best: confidence 0.800, 4 of 5 readable votes; 1 unreadable"
    ]


def test_a_judge_that_always_says_the_first_makes_a_tie() -> None:
    greedy = _told({"12": "1", "21": "1"}, votes=None)
    assert (greedy.winner, greedy.tied) == (None, (1, 2))
    told = _told({"12": "1111", "21": "1111"}, votes=3)
    assert (told.winner, told.tied, told.confidence) == (None, (1, 2), None)
    assert list(lines_of(_item(2), told, with_texts=True))[-1] == "a tie of responses 1 and 2"


def test_greedy_verdicts_that_agree_decide_between_equal_votes() -> None:
    told = _told({"12": "111", "21": "211"}, votes=2)
    assert (told.winner, told.confidence, told.pairs[0].votes) == (1, 0.5, (2, 2))


def test_what_cannot_be_read_is_for_nobody() -> None:
    told = _told({"12": [None, None], "21": [None, None]}, votes=1)
    assert (told.winner, told.tied, told.unreadable) == (None, (), 2)
    assert list(lines_of(_item(2), told, with_texts=True))[-1] == "undecided: no verdict can be read; 2 unreadable"
    greedy = _told({"12": ["1", None], "21": ["2", None]}, votes=1)
    assert (greedy.winner, greedy.confidence) == (1, None)


def test_of_three_the_one_that_wins_most_pairs_is_the_best() -> None:
    told = _told({"12": "2", "21": "1", "13": "1", "31": "2", "23": "1", "32": "2"}, votes=None)
    assert [(pair.responses, pair.winner) for pair in told.pairs] == [((1, 2), 2), ((1, 3), 1), ((2, 3), 2)]
    assert (told.winner, told.confidence) == (2, 1.0)
    assert list(lines_of(_item(3), told, with_texts=False)) == [
        "row 3 (a): 1 or 2: 2, 0 and 2 votes",
        "row 3 (a): 1 or 3: 1, 2 and 0 votes",
        "row 3 (a): 2 or 3: 2, 2 and 0 votes",
        "row 3 (a): response 2 is best: confidence 1.000, 4 of 4 readable votes",
    ]
    circle = _told({"12": "2", "21": "1", "13": "1", "31": "2", "23": "2", "32": "1"}, votes=None)
    assert (circle.winner, circle.tied) == (None, (1, 2, 3))


def test_nobody_is_best_who_was_not_compared_with_a_rival() -> None:
    nothing, for_2 = [None, None], {"23": "1", "32": "2"}
    told = _told({"12": nothing, "21": nothing, "13": nothing, "31": nothing, **for_2}, votes=None)
    assert (told.winner, told.tied, told.confidence) == (None, (), None)
    assert list(lines_of(_item(3), told, with_texts=False))[-3:] == [
        "row 3 (a): 1 or 3: undecided, 2 unreadable",
        "row 3 (a): 2 or 3: 2, 2 and 0 votes",
        "row 3 (a): undecided: no verdict on 1 or 2, 1 or 3 can be read; 4 unreadable",
    ]
    without_it = _told({"12": "2", "21": "1", "13": nothing, "31": nothing, **for_2}, votes=None)
    assert (without_it.winner, without_it.confidence) == (2, 1.0)
    both_won = _told({"12": nothing, "21": nothing, "13": "1", "31": "2", **for_2}, votes=None)
    assert (both_won.winner, both_won.tied) == (None, ())


@given(st.integers(2, 4).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(1, n + 1)))), st.data())
def test_the_order_in_which_responses_are_listed_decides_nothing(
    numbers: tuple[int, list[int]], data: st.DataObject
) -> None:
    count, moved = numbers
    pairs = [order for a, b in combinations(range(1, count + 1), 2) for order in ((a, b), (b, a))]
    said = {order: data.draw(st.lists(st.sampled_from(["1", "2", None]), min_size=4, max_size=4)) for order in pairs}
    told = _told({f"{a}{b}": own for (a, b), own in said.items()}, votes=3)
    again = _told({f"{moved[a - 1]}{moved[b - 1]}": own for (a, b), own in said.items()}, votes=3)
    assert again.winner == (None if told.winner is None else moved[told.winner - 1])
    assert again.confidence == told.confidence and again.unreadable == told.unreadable
    assert again.tied == tuple(sorted(moved[number - 1] for number in told.tied))


def _ranked(*rewards: float, why: str = ""):
    said = Prediction(row=3, digest="d", rewards=rewards, text="1: good", finish_reason=why)
    return ranked(Answered(item=_item(len(rewards)), predictions=(said,)))


def test_rewards_rank_the_responses_and_say_by_how_much() -> None:
    told = _ranked(0.25, -1.0, 0.75)
    assert (told.winner, told.ranking, told.margin) == (3, (3, 1, 2), 0.5)
    assert list(lines_of(_item(3), told, with_texts=True)) == [
        "1: good",
        "",
        "response 3: 0.75",
        "response 1: 0.25",
        "response 2: -1",
        "response 3 is best: margin 0.5",
    ]
    assert record(_item(3), told)["rewards"] == (0.25, -1.0, 0.75)


def test_equal_rewards_tie_and_a_response_without_one_is_in_no_rank() -> None:
    told = _ranked(0.5, 0.5, 0.25)
    assert (told.winner, told.tied, told.margin) == (None, (1, 2), 0.0)
    lone = _ranked(float("nan"), 0.5, why="1: too_long")
    assert (lone.winner, lone.rewards, lone.ranking, lone.margin) == (2, (None, 0.5), (2,), None)
    assert list(lines_of(_item(2), lone, with_texts=False))[1:] == [
        "row 3 (a): without a reward: 1: too_long",
        "row 3 (a): response 2 alone has a reward",
    ]
    assert (_ranked(float("nan"), float("nan")).winner, _ranked(float("nan"), float("nan")).tied) == (None, ())


def test_a_terminal_obeys_nothing_that_a_judge_writes() -> None:
    predictions = tuple(
        Prediction(row=3, digest="d", order=order, text="\x1b[2J\u202eok\ttab\n<answer>1</answer>")
        for order in ("12", "21")
    )
    told = compared(Answered(item=_item(2), predictions=predictions), form="tagged", votes=None)
    assert list(lines_of(_item(2), told, with_texts=True))[1:3] == ["\ufffd[2J\ufffdok\ttab", "<answer>1</answer>"]


@pytest.mark.parametrize(("form", "text"), [("bracketed", "[[B]]"), ("answer_is_better", "Answer 2 is better")])
def test_verdicts_are_read_in_the_form_that_was_asked_for(form: str, text: str) -> None:
    predictions = (
        Prediction(row=3, digest="d", order="12", text=text),
        Prediction(row=3, digest="d", order="21", text=_verdict("1")),
    )
    told = compared(Answered(item=_item(2), predictions=predictions), form=form, votes=None)
    assert (told.winner, told.confidence, told.unreadable) == (2, 1.0, 1)
