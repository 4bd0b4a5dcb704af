"""An answer is read where it is plain, and is None where it is not."""

import pytest

from orchestrator.evaluation.answers import parse_option, parse_yes_no
from orchestrator.evaluation.benchmarks.mmmu import judge_open
from orchestrator.evaluation.benchmarks.pope import pope_official

_ANIMALS = {"A": "a cat", "B": "hot dog", "C": "Dog", "D": "vitamin C"}
_NUMBERS = {"A": "5", "B": "-5", "C": "0.5", "D": "15"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("**NO**", "no"),
        ("No\nthere", "no"),
        ("There is no dog.", "no"),
        ("Yes, there is no leash.", "yes"),
        ("There is no dog, yes.", None),
        ("No, wait, yes.", None),
        ("Please answer yes or no", None),
        ("Know", None),
        ("Not sure", None),
        ("I have no idea", None),
        ("It is not a yes.", None),
        ("There isn't any dog.", None),
        ("", None),
    ],
)
def test_yes_and_no_are_read_and_never_guessed(text: str, expected: str | None) -> None:
    assert parse_yes_no(text) == expected


def test_the_official_pope_rule_is_kept_with_its_faults() -> None:
    said_yes = ["There isn't any dog.", "NO", "Not sure", "No\nthere", "", "Yes. There is no dog"]
    assert [pope_official(text) for text in said_yes] == ["yes"] * len(said_yes)
    assert [pope_official(text) for text in ["No, sir", "It is not", "I see no dog. Yes"]] == ["no"] * 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("D", "D"),
        ("d.", "D"),
        ("(B)", "B"),
        ("B. Dog", "B"),
        ("Dog", "C"),
        ("Door", None),
        ("A dog is shown", "C"),
        ("A is right", "A"),
        ("I think A is right", "A"),
        ("It is not A but B", "B"),
        ("A or B", None),
        ("I see a hot dog", "B"),
        ("Not the hot dog, the dog", None),
        ("It shows vitamin C here", "D"),
        ("Option A is a bird, option C a dog. The answer is **C**.", "C"),
        ("A, B? <answer>B</answer>", "B"),
        ("The answer is E", None),
        ("", None),
    ],
)
def test_an_option_is_read_where_it_is_plain(text: str, expected: str | None) -> None:
    assert parse_option(text, _ANIMALS) == expected


def test_no_word_reads_as_the_option_of_its_first_letter() -> None:
    others = {letter: f"thing {number}" for number, letter in enumerate("ABCD")}
    assert [parse_option(word, others) for word in ["Dog", "A dog", "cat", "Because", "D-day", "B's"]] == [None] * 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", "A"), ("-5", "B"), ("0.5", "C"), ("It is 15.", "D"), ("0.55", None), ("1,5", None), ("15,500", None)],
)
def test_a_number_inside_another_is_no_option(text: str, expected: str | None) -> None:
    assert parse_option(text, _NUMBERS) == expected


@pytest.mark.parametrize(
    ("text", "truth", "expected"),
    [
        ("x = 1.6 × 10^{-19}", "1.6e-19", True),
        ("1.7e-19", "1.6e-19", False),
        ("−3", "-3", True),
        ("3", "-3", False),
        ("$1,234.50", "1234.5", True),
        ("12.4", "12", False),
        ("50%", "50%", True),
        ("6 is the result", "6", True),
        ("12\nThe answer is 13.", "12", False),
        ("Answer: 5? No. Answer: 6\nChecked twice: 7", "6", True),
        ("I count 3. Thus there are 4 cells", "4", True),
        ("3²", "3", None),
        ("1/2", "0.5", None),
        ("1/2", "1/2", True),
        ("none", "4", None),
        ("Answer: mitosis, because it divides", "Mitosis", True),
        ("mitosis or meiosis", "mitosis", False),
        ("It is not mitosis", "mitosis", False),
        (" . ", "mitosis", None),
    ],
)
def test_an_open_answer_equals_the_truth(text: str, truth: str, expected: bool | None) -> None:
    assert judge_open(text, [truth]) is expected


def test_any_of_several_truths_is_right_and_one_readable_verdict_makes_it_read() -> None:
    assert judge_open("two", ["2", "two"]) is True
    assert judge_open("three", ["2", "two"]) is False
    assert judge_open("three", ["2"]) is None
    with pytest.raises(ValueError, match="at least one truth"):
        judge_open("two", [])
