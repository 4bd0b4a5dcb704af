"""Answers of any task against their labels, and several samples of a prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.evaluation.held_out import by_source, judged
from orchestrator.evaluation.right import AtK, at_k, is_right, readable_answer
from workers.types import Prompt

_ANSWERS = st.lists(st.lists(st.sampled_from(["1", "2", "x", None]), min_size=3, max_size=3), min_size=1, max_size=6)


def _prompt(uid: str, label: str, source: str = "") -> Prompt:
    return Prompt(uid=uid, messages=(), media=(), label=label, source=source)


@pytest.mark.parametrize(
    ("text", "label", "right"),
    [
        ("<think> 3 plus 4 </think> <answer> 7 </answer>", "7", True),
        ("<answer>7.0</answer>", "7", True),
        ("<answer> 7 <answer> 7 <answer> 7 </answer>", "7", True),
        ("<answer> 7 <answer> 8 </answer>", "7", False),
        (r"so \boxed{\frac{1}{2}}", r"\boxed{\frac{1}{2}}", True),
        ("<think>x</think> New York.", "new york", True),
        ("1,000", "1000", True),
        ("1,2", "12", False),
        ("1/2", "0.5", True),
        ("<answer>7</answer>", "8", False),
        ("<think>7</think>", "7", False),
        ("", "7", False),
    ],
)
def test_an_answer_is_compared_as_a_number_or_as_words(text: str, label: str, right: bool) -> None:
    assert is_right(readable_answer(text, judging=False), label, judging=False) is right


def test_a_label_that_happens_to_be_1_makes_no_judgement_of_a_sum() -> None:
    prompts = [_prompt("a", "1"), _prompt("b", "12")]
    result = judged(prompts, [r"\boxed{1}", "12"])
    assert (result.judging, result.accuracy, result.first_position_rate) == (False, 1.0, None)
    verdicts = judged(prompts[:1], [r"\boxed{1}"])
    assert (verdicts.judging, verdicts.accuracy, verdicts.unreadable_frac) == (True, 0.0, 1.0)


def test_four_samples() -> None:
    answers = [["7", "7", "8", "9"], ["8", "7", None, None], [None, None, None, "7"], ["1", "2", "3", "4"]]
    found = at_k(answers, ["7", "7", "7", "9"], judging=False)
    assert found == AtK(k=4, mean=4 / 16, any=3 / 4, majority=2 / 4)


@given(_ANSWERS)
def test_a_majority_is_among_the_samples_and_a_mean_below_any(answers: list[list[str | None]]) -> None:
    found = at_k(answers, ["1"] * len(answers), judging=False)
    assert 0 <= found.mean <= found.any <= 1
    assert found.majority <= found.any


def test_each_source_has_its_own_mean() -> None:
    prompts = [_prompt("a", "1", "geo"), _prompt("b", "1", "chart"), _prompt("c", "1", "geo")]
    assert by_source({"eval/accuracy": [1.0, 0.0, 0.0]}, prompts) == {
        "eval/accuracy/geo": 0.5,
        "eval/accuracy/chart": 0.0,
    }
    assert by_source({"eval/accuracy": [1.0]}, [_prompt("a", "1")]) == {}
