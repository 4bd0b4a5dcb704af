"""Accuracy, the two texts a judge reads, and how the parts combine."""

import pytest

from remote_rm.parts import (
    Question,
    accuracy_score,
    answer_sentence,
    parse_answer,
    reasoning_of,
    released_accuracy,
    released_question,
    tail,
)
from remote_rm.rulebooks import STRICT


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<answer>1</answer>", "1"),
        ("no think block <answer>\n 2 \n</answer> and more", "2"),
        ("<answer>3</answer>", None),
        ("<answer>1 or 2</answer>", None),
        ("<answer>1.0</answer>", None),
        ("<answer>+1</answer>", None),
        ("<answer>1e0</answer>", None),
        ("<answer>１</answer>", None),
        ("<answer>²</answer>", None),
        ("<answer></answer>", None),
        ("<answer>1", None),
        ("</answer>1<answer>", None),
        ("<answer>1</answer><answer>1</answer>", None),
        ("<answer><answer>1</answer></answer>", None),
        ("Response 2", None),
        ("", None),
    ],
)
def test_only_a_single_block_with_1_or_2_is_an_answer(response: str, answer: str | None) -> None:
    assert parse_answer(response) == answer


def test_accuracy_compares_with_the_label() -> None:
    assert [accuracy_score("<answer>1</answer>", label) for label in ("1", "2")] == [1.0, 0.0]
    assert accuracy_score("<answer>neither</answer>", "1") == 0.0


@pytest.mark.parametrize(
    ("shape", "accuracy", "consistency", "reward"),
    [
        (1.0, 1.0, 1.0, 2.0),
        (1.0, 1.0, 0.0, 1.5),
        (1.0, 1.0, -1.0, 1.0),
        (0.0, 1.0, 1.0, 1.5),
        (0.0, 1.0, -1.0, 0.5),
        (1.0, 0.0, None, 0.5),
        (0.0, 0.0, None, 0.0),
    ],
)
def test_combination(shape: float, accuracy: float, consistency: float | None, reward: float) -> None:
    assert STRICT.reward({"format": shape, "accuracy": accuracy, "consistency": consistency}) == reward


def test_the_reasoning_ends_where_the_answer_begins() -> None:
    assert reasoning_of("<think>a\nb</think>\n<answer>1</answer> c") == "a\nb"
    assert reasoning_of("no tags") == "no tags"


def test_the_tail_is_the_last_three_lines_that_hold_something() -> None:
    assert tail("one\ntwo\n\n  three \nfour\n \n") == "two\nthree\nfour"
    assert tail("") == ""


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [("1", "Response 1 is better."), (" 2\n", "Response 2 is better."), ("the first one", "the first one")],
)
def test_the_answer_as_a_sentence(answer: str, sentence: str) -> None:
    assert answer_sentence(answer) == sentence


@pytest.mark.parametrize("content", ["<answer>1/0</answer>", "<answer>\\frac{1}{0}</answer>", "<answer>²</answer>"])
def test_a_number_that_is_none_scores_nothing_in_compat(content: str) -> None:
    assert released_accuracy(content, ("1",)) == 0.0
    assert released_accuracy("<answer>1</answer>", (content,)) == 0.0


def test_compat_survives_an_answer_of_many_digits() -> None:
    digits = "9" * 100_000
    assert released_question(f"<answer>{digits}</answer>") == Question("", "two response are the same")
    assert released_accuracy(f"<answer>{digits}</answer>", ("1",)) == 0.0
