"""The built-in reward functions, on what models and data files write."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_rm.scorers.answers import answer_of, choice, count, exact, math, number
from remote_rm.scorers.grounding import boxes, iou, overlap, point
from remote_rm.scorers.shape import format_, length, overlong

_COORDINATE = st.integers(-50, 50)
_BOX = st.tuples(_COORDINATE, _COORDINATE, _COORDINATE, _COORDINATE)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>3 or 4</think><answer> 4 </answer>", "4"),
        ("<answer>3</answer> no, <answer>4</answer>", "4"),
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        (r"<think>\boxed{1}</think>\boxed{ 2 }", "2"),
        (r"<answer>\boxed{7}</answer>", "7"),
        ("<think>long\nthoughts</think>\n\n 12 ", "12"),
        ("12", "12"),
        (r"\boxed{never closed", r"\boxed{never closed"),
    ],
)
def test_the_answer_is_what_is_marked_as_one(text: str, answer: str) -> None:
    assert answer_of(text) == answer


@pytest.mark.parametrize(
    ("completion", "label", "right"),
    [
        ("The area is 1,234.50 cm.", "1234.5", 1.0),
        ("about 0.5", "1/2", 1.0),
        (r"\boxed{\frac{3}{4}}", "0.75", 1.0),
        ("50%", "0.5", 1.0),
        (r"12.5\%", "12.5%", 1.0),
        ("-3", "3", 0.0),
        ("−3", "-3", 1.0),
        ("1e3", "1000", 1.0),
        ("$40", "40", 1.0),
        ("x = 5, so 10", "10", 1.0),
        ("I cannot tell", "10", 0.0),
        ("5/0", "5", 0.0),
        ("10.4", "10", 0.0),
        ("from 12-15", "15", 1.0),
        ("(-3)", "-3", 1.0),
        ("9" * 40, "9" * 10, 0.0),
        ("1234,567", "567", 0.0),
        ("3,4", "4", 0.0),
    ],
)
def test_numbers_are_compared_by_value(completion: str, label: str, right: float) -> None:
    assert number(completion, label) == right


def test_thousands_of_boxes_that_are_never_closed_take_no_time() -> None:
    began = time.monotonic()
    assert answer_of("\\boxed{1}" + "\\boxed{" * 100_000) == "1"
    assert answer_of("<answer>" * 100_000 + "1</answer>" + "<answer>" * 100_000) == "1"
    assert time.monotonic() - began < 2
    assert answer_of("\\boxed{a {b}} \\boxed{never") == "a {b}"


def test_a_tolerance_is_a_share_of_the_label() -> None:
    assert [number(text, "-100", tolerance=0.05) for text in ("-95", "-105", "-94.9", "95")] == [1.0, 1.0, 0.0, 0.0]


@given(st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6))
def test_a_mixed_number_is_one_number(value: Fraction) -> None:
    units, rest = divmod(abs(value.numerator), value.denominator)
    sign = "-" if value < 0 else ""
    for part in (f" {rest}/{value.denominator}", f"\\frac{{{rest}}}{{{value.denominator}}}"):
        assert number(f"it is {sign}{units}{part}", str(value)) == 1.0


@pytest.mark.parametrize(
    ("completion", "label"),
    [
        ("2\n1/2", "0.5"),
        ("2, 1/2", "0.5"),
        ("20% 1/2", "0.5"),
        ("2.5 1/2", "0.5"),
        ("2 3/2", "1.5"),
        ("2 -1/2", "-0.5"),
    ],
)
def test_what_is_no_mixed_number_ends_in_its_fraction(completion: str, label: str) -> None:
    assert number(completion, label) == 1.0


@given(st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6))
def test_every_fraction_is_read_as_written(value: Fraction) -> None:
    assert number(f"it is {value.numerator}/{value.denominator}", str(value)) == 1.0


@pytest.mark.parametrize(
    ("completion", "label", "right"),
    [
        ("B", "B", 1.0), ("(b)", "B", 1.0), ("B. a red car", "(B)", 1.0), ("The answer is C", "C", 1.0),
        ("Answer: **D**", "D", 1.0), ("<think>A?</think><answer>B</answer>", "B", 1.0), ("A or B", "B", 0.0),
        ("A dog is in it, so option E.", "E", 1.0), ("none of them", "B", 0.0), ("I'd say (C)", "C", 1.0),
    ],
)  # fmt: skip
def test_letters_of_a_choice(completion: str, label: str, right: float) -> None:
    assert choice(completion, label) == right


def test_counts_in_digits_and_words() -> None:
    found = [count(text, "12") for text in ("twelve birds", "12", "12.0", "12.5", "ten, no, twelve", "dozens")]
    assert found == [1.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    assert count("twenty-one", "1") == 0.0


def test_exact_words() -> None:
    assert [exact(text, "New  York.") for text in ("new york", "<answer>New York</answer>", "york")] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("completion", "label", "right"),
    [
        (r"\boxed{\frac{1}{2}}", "0.5", 1.0),
        (r"<answer>x+1</answer>", "$1+x$", 1.0),
        (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", 1.0),
        ("<answer>7</answer>", "8", 0.0),
        ("no idea", "8", 0.0),
    ],
)
def test_mathematics_is_compared_as_mathematics(completion: str, label: str, right: float) -> None:
    assert math(completion, label) == right


@pytest.mark.parametrize("rule", [number, count, choice, exact])
def test_a_label_that_is_none_is_an_error_and_no_wrong_answer(rule: object) -> None:
    with pytest.raises(ValueError, match="no label"):
        rule("7", None)  # type: ignore[operator]


def test_a_label_that_cannot_be_compared_is_an_error() -> None:
    for rule, label in ((number, "red"), (count, "2.5"), (choice, "red car"), (iou, "here"), (point, "here")):
        with pytest.raises(ValueError, match="the label"):
            rule("7", label)


@given(_BOX, _BOX)
def test_overlap_is_symmetrical_and_a_share(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    (a,), (b,) = boxes(str(list(one))), boxes(str(list(other)))
    assert overlap(a, b) == overlap(b, a)
    assert 0.0 <= overlap(a, b) <= 1.0
    area = (a[2] - a[0]) * (a[3] - a[1])
    assert overlap(a, a) == (1.0 if area else 0.0)


def test_boxes_however_they_are_written() -> None:
    label = "[0, 0, 10, 10]"
    for text in ('{"bbox_2d": [0, 0, 10, 5]}', "<answer>(0,0),(10,5)</answer>", "<0, 0, 10, 5>", "[10, 5, 0, 0]"):
        assert iou(text, label) == 0.5
    assert iou("nowhere", label) == 0.0
    assert [iou("[0,0,10,5]", label, threshold=t) for t in (0.5, 0.6)] == [1.0, 0.0]


def test_several_boxes_are_matched_once_each_and_one_too_many_costs() -> None:
    label = "[[0,0,10,10],[20,20,30,30]]"
    assert iou("[[20,20,30,30],[0,0,10,10]]", label) == 1.0
    assert iou("[[0,0,10,10],[0,0,10,10]]", label) == 0.5
    assert iou("[[0,0,10,10],[20,20,30,30],[50,50,60,60]]", label) == pytest.approx(2 / 3)


def test_points() -> None:
    assert [point(text, "[0,0,10,10]") for text in ("(5, 5)", "[11, 5]", "no")] == [1.0, 0.0, 0.0]
    assert [point("(3,4)", "(0,0)", radius=radius) for radius in (5.0, 4.9)] == [1.0, 0.0]


def test_shape() -> None:
    assert [format_(text) for text in ("<think>a</think>\n<answer>b</answer>", "<answer>b</answer>")] == [1.0, 0.0]
    assert [length(n, most=100) for n in (0, 25, 100, 200)] == [1.0, 0.75, 0.0, 0.0]


def test_overlong_is_the_papers() -> None:
    # DAPO: 16,384 expected tokens and 4,096 of a soft punishment, at most 20,480.
    found = [overlong(n, longest=20_480, buffer=4_096) for n in (100, 16_384, 18_432, 20_480, 30_000)]
    assert found == [0.0, 0.0, -0.5, -1.0, -1.0]
