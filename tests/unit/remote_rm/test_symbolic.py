"""Parts of a reward that need no model: the answer's correctness by a table, its length, whether it ended."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_rm.functions.spec import function_specs
from remote_rm.scorers import SCORERS
from remote_rm.scorers.symbolic import correctness, length_cost, unfinished


@pytest.mark.parametrize(
    ("text", "label", "worth"),
    [
        ("A. a cat", "A", 2.0),
        ("(A)", "A", 2.0),
        ("A", "A", 2.0),
        ("B. a dog", "A", 0.0),
        ("The correct option is A.", "A", 2.0),
        ("the correct answer is: **A**", "A", 2.0),
        ("The correct option is B. No, the correct option is A.", "A", 2.0),
        ("The correct option is A. No, the correct option is B.", "A", 0.0),
        ("The incorrect option is A.", "A", 0.0),
        ("A cat. It is asleep.", "A", 0.0),
        ("<think>B.</think> A.", "A", 2.0),
        ("No", "No", 1.0),
        ("no, there is none.", "No", 1.0),
        ("**No**", "No", 1.0),
        ("Yes, it is", "No", -1.0),
        ("Nobody is there", "No", 0.0),
        ("None", "No", 0.0),
        ("Not at all", "No", 0.0),
        ("No-one is there", "No", 0.0),
        ("Yesterday", "No", 0.0),
        ("", "No", 0.0),
        ("Yes", "Yes", 0.0),
        ("No", "Yes", 0.0),
        ("anything", None, None),
    ],
)
def test_answers_are_worth_what_the_default_table_says(text: str, label: str | None, worth: float | None) -> None:
    assert correctness(text, label) == worth


def test_the_table_is_the_users() -> None:
    symmetric: dict[str, Any] = {"yes_right": 1.0, "yes_wrong": -1.0}
    assert [correctness(text, "Yes", **symmetric) for text in ("Yes", "No", "Perhaps")] == [1.0, -1.0, 0.0]
    own: dict[str, Any] = {"right": 1.0, "wrong": -0.5, "no_right": 3.0, "no_wrong": -3.0}
    assert [correctness(text, "A", **own) for text in ("A.", "B.", "?")] == [1.0, -0.5, -0.5]
    assert [correctness(text, "no", **own) for text in ("No.", "yes.")] == [3.0, -3.0]


def test_as_released_a_word_may_go_on_and_a_letter_needs_its_full_stop() -> None:
    texts = ("Nobody is there", "no", "No", "Yesterday")
    assert [correctness(text, "No", released=True) for text in texts] == [1.0, 0.0, 1.0, -1.0]
    texts = ("A. cat", "A", "A) cat", "The incorrect option is A.", "correct option is A")
    assert [correctness(text, "A", released=True) for text in texts] == [2.0, 0.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize("label", ["red car", "a", "AB", "7"])
def test_a_label_that_is_no_letter_and_no_yes_or_no_is_an_error(label: str) -> None:
    with pytest.raises(ValueError, match="neither a capital letter nor yes or no"):
        correctness("A.", label)


@given(st.text(max_size=40), st.sampled_from(["A", "D", "Yes", "no"]), st.booleans())
def test_any_text_is_worth_one_of_the_tables_numbers(text: str, label: str, released: bool) -> None:
    assert correctness(text, label, released=released) in {2.0, 0.0, 1.0, -1.0}


@pytest.mark.parametrize(
    ("row", "cost"),
    [({}, -300 / 896), ({"length_bonus": None}, -300 / 896), ({"length_bonus": -0.5}, 150 / 896)],
)
def test_length_costs_its_share_times_the_rows_factor(row: Mapping[str, Any], cost: float) -> None:
    assert length_cost(300, row, longest=896) == pytest.approx(cost, rel=1e-12)


@pytest.mark.parametrize("factor", ["much", True, [1.0]])
def test_a_factor_that_is_no_number_is_an_error(factor: object) -> None:
    with pytest.raises(ValueError, match="length_bonus is"):
        length_cost(300, {"length_bonus": factor}, longest=896)
    with pytest.raises(ValueError, match="longest = 0"):
        length_cost(300, {}, longest=0)


def test_the_released_run_by_its_parts() -> None:
    # Score 0.3, cut at 224 of 896 tokens, factor 1: −8 − 2.5; 300 tokens at factor −0.5 are paid.
    weights = {spec.name: spec.weight for spec in function_specs(["length_cost?longest=896&weight=10"])}
    cut = 0.3 + 8 * unfinished("length") + weights["length_cost"] * length_cost(224, {}, longest=896)
    assert cut == pytest.approx(-10.2, rel=1e-12)
    paid = 10 * length_cost(300, {"length_bonus": -0.5}, longest=896)
    assert paid == pytest.approx(1.674, abs=5e-4)


def test_only_its_own_end_of_turn_finishes_a_response() -> None:
    """A question mark does not take it away, whatever the text is."""
    assert [unfinished(reason) for reason in ("stop", "length", "abort")] == [0.0, -1.0, -1.0]
    assert {"correctness", "length_cost", "unfinished"} <= set(SCORERS)
