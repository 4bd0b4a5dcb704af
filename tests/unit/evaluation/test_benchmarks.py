"""Ten rows of each benchmark, with every figure worked out by hand beside it, and what holds for any rows."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from orchestrator.evaluation.answers import YesNo, parse_option, parse_yes_no, share
from orchestrator.evaluation.benchmarks.mmbench import MmbenchRow, score_mmbench
from orchestrator.evaluation.benchmarks.mme import PERCEPTION, REASONING, MmeRow, score_mme
from orchestrator.evaluation.benchmarks.mmmu import MmmuRow, judge_choice, judge_open, score_mmmu
from orchestrator.evaluation.benchmarks.pope import PopeRow, score_pope

_SHUFFLES = 20
_ANIMALS = {"A": "a cat", "B": "hot dog", "C": "Dog", "D": "vitamin C"}


def _pope_rows() -> list[PopeRow]:
    read: list[tuple[str, YesNo]] = [
        ("Yes", "yes"),  # TP
        ("Yes, there is a dog.", "yes"),  # TP
        ("yes.", "yes"),  # TP
        ("No", "yes"),  # FN
        ("I have no idea.", "yes"),  # unanswered, FN
        ("Yes", "no"),  # FP
        ("No", "no"),  # TN
        ("There is no dog.", "no"),  # TN
        ("NO", "no"),  # TN
        ("Not sure", "no"),  # unanswered, not right either
    ]
    return [PopeRow(answer=parse_yes_no(text), label=label) for text, label in read]


def _mme_rows() -> list[MmeRow]:
    read: list[tuple[str, str, str, YesNo]] = [
        ("existence", "1", "Yes", "yes"),  # image 1: both right
        ("existence", "1", "No", "no"),
        ("existence", "2", "Yes", "yes"),  # image 2: one right
        ("existence", "2", "Yes", "no"),
        ("count", "1", "No", "yes"),  # image 1 of count: one right
        ("count", "1", "No", "no"),
        ("code_reasoning", "1", "Yes", "yes"),  # image 1: both right
        ("code_reasoning", "1", "No", "no"),
        ("code_reasoning", "2", "Hard to say", "yes"),  # image 2: unanswered, and wrong
        ("code_reasoning", "2", "Yes", "no"),
    ]
    return [
        MmeRow(category=category, image=image, answer=parse_yes_no(text), label=label)
        for category, image, text, label in read
    ]


def _mmbench_rows() -> list[MmbenchRow]:
    read: list[tuple[int, str, str, int, str]] = [
        (7, "A", "A", 4, "logic"),  # question 7: right under all four
        (1_000_007, "(D)", "D", 4, "logic"),
        (2_000_007, "C. Dog", "C", 4, "logic"),
        (3_000_007, "The answer is B.", "B", 4, "logic"),
        (8, "B", "B", 4, "logic"),  # question 8: right as first asked, unreadable under one rotation
        (1_000_008, "A", "A", 4, "logic"),
        (2_000_008, "Door", "D", 4, "logic"),
        (3_000_008, "C", "C", 4, "logic"),
        (9, "A", "B", 2, "colour"),  # question 9: always A, so right under one of two
        (1_000_009, "A", "A", 2, "colour"),
    ]
    return [
        MmbenchRow(index=index, answer=parse_option(text, _ANIMALS), label=label, num_options=options, group=group)
        for index, text, label, options, group in read
    ]


def _mmmu_rows() -> list[MmmuRow]:
    choice = [
        ("The answer is (B).", "B", "art"),  # right
        ("Dog", "D", "art"),  # reads as C, whose text it is: wrong
        ("A or B", "A", "art"),  # unreadable
        ("I cannot tell.", "C", "physics"),  # unreadable
    ]
    answered = [
        ("The area of the 3 triangles is 1,200 cm.", "1200", "physics"),  # right
        ("3.14159", "3.14", "physics"),  # right: differs by 0.00159, at most 0.005
        ("0.004", "0.001", "physics"),  # wrong: differs by 0.003, more than 0.0005
        ("3 or 4", "3", "physics"),  # unreadable: two numbers
        ("The answer is the Left ventricle.", "left ventricle", "medicine"),  # right
        ("unknown", "no", "medicine"),  # wrong, though "no" is inside
    ]
    return [
        *(MmmuRow(right=judge_choice(t, _ANIMALS, label), is_open=False, group=g) for t, label, g in choice),
        *(MmmuRow(right=judge_open(text, [truth]), is_open=True, group=group) for text, truth, group in answered),
    ]


def test_pope_on_ten_rows() -> None:
    """VL-RLHF acceptance 8."""
    result = score_pope(_pope_rows())
    # TP 3, FP 1, TN 3, FN 2 (one of them unanswered), and one unanswered row with label no.
    assert result.accuracy == (3 + 3) / 10
    assert result.precision == 3 / (3 + 1)
    assert result.recall == 3 / (3 + 2)
    # 2 · 0.75 · 0.6 / (0.75 + 0.6) = 0.9 / 1.35 = 2/3
    assert result.f1 == pytest.approx(2 / 3, abs=1e-15)
    assert result.yes_ratio == (3 + 1) / 10
    assert (result.num_rows, result.num_unanswered) == (10, 2)


def test_mme_on_ten_rows() -> None:
    """VL-RLHF acceptance 8."""
    result = score_mme(_mme_rows())
    existence, count, code = (result.categories[name] for name in ("existence", "count", "code_reasoning"))
    # The example of the specification: 3 of 4 questions, 1 of 2 images: 75 + 50 = 125.
    assert (existence.accuracy, existence.accuracy_plus, existence.score) == (0.75, 0.5, 125)
    # 1 of 2 questions, 0 of 1 images: 50 + 0.
    assert (count.accuracy, count.accuracy_plus, count.score) == (0.5, 0, 50)
    # 2 of 4 questions, 1 of 2 images: 50 + 50.
    assert (code.accuracy, code.accuracy_plus, code.score) == (0.5, 0.5, 100)
    assert (code.num_questions, code.num_images, code.num_unanswered) == (4, 2, 1)
    assert (result.perception, result.reasoning) == (125 + 50, 100)
    assert result.missing == PERCEPTION[2:] + REASONING[:3]


def test_mmbench_on_ten_rows() -> None:
    """VL-RLHF acceptance 8."""
    result = score_mmbench(_mmbench_rows())
    # Questions 7, 8, 9: only 7 is right under all of its 4, 4, 2 rotations; 7 and 8 are right as first asked.
    assert result.circular_accuracy == 1 / 3
    assert result.vanilla_accuracy == 2 / 3
    # logic holds 7 and 8: 1 of 2; colour holds 9: 0 of 1.
    assert result.circular_by_group == {"colour": 0, "logic": 1 / 2}
    assert (result.num_questions, result.num_rows, result.num_unreadable) == (3, 10, 1)


def test_mmmu_on_ten_rows() -> None:
    """VL-RLHF acceptance 8."""
    result = score_mmmu(_mmmu_rows())
    # Right: 1 of 4 choices and 3 of 6 open questions, 4 of 10 in all.
    assert (result.choice_accuracy, result.open_accuracy, result.accuracy) == (1 / 4, 3 / 6, 4 / 10)
    # art 1 of 3; medicine 1 of 2; physics: one unreadable choice and four open, of which 2 are right.
    assert result.accuracy_by_group == {"art": 1 / 3, "medicine": 1 / 2, "physics": 2 / 5}
    assert (result.num_rows, result.num_open, result.num_unreadable) == (10, 6, 3)


@pytest.mark.parametrize(
    ("score", "rows"),
    [
        (score_pope, _pope_rows()),
        (score_mme, _mme_rows()),
        (score_mmbench, _mmbench_rows()),
        (score_mmmu, _mmmu_rows()),
    ],
)
def test_the_order_of_the_rows_does_not_matter(score: Callable[[Sequence[object]], object], rows: list[object]) -> None:
    expected = score(rows)
    for seed in range(_SHUFFLES):
        assert score(random.Random(seed).sample(rows, len(rows))) == expected


@pytest.mark.parametrize("kind", ["wrong", "unanswered"])
def test_all_wrong_and_nothing_answered_are_zero(kind: str) -> None:
    opposite: dict[YesNo, YesNo] = {"yes": "no", "no": "yes"}
    wrong = kind == "wrong"
    pope = score_pope([replace(row, answer=opposite[row.label] if wrong else None) for row in _pope_rows()])
    assert (pope.accuracy, pope.precision, pope.recall, pope.f1) == (0, 0, 0, 0)
    # All five rows with label no are answered yes, or none is.
    assert pope.yes_ratio == (5 / 10 if wrong else 0)
    mme = score_mme([replace(row, answer=opposite[row.label] if wrong else None) for row in _mme_rows()])
    assert (mme.perception, mme.reasoning) == (0, 0)
    mmbench = score_mmbench([replace(row, answer="Z" if wrong else None) for row in _mmbench_rows()])
    assert (mmbench.circular_accuracy, mmbench.vanilla_accuracy) == (0, 0)
    mmmu = score_mmmu([replace(row, right=False if wrong else None) for row in _mmmu_rows()])
    assert (mmmu.accuracy, mmmu.choice_accuracy, mmmu.open_accuracy) == (0, 0, 0)
    counted = (pope.num_unanswered, mmbench.num_unreadable, mmmu.num_unreadable)
    assert counted == ((0, 0, 0) if wrong else (10, 10, 10))


def test_all_right_is_the_maximum() -> None:
    pope = score_pope([replace(row, answer=row.label) for row in _pope_rows()])
    assert (pope.accuracy, pope.precision, pope.recall, pope.f1, pope.yes_ratio) == (1, 1, 1, 1, 0.5)
    labels: tuple[YesNo, YesNo] = ("yes", "no")
    names = PERCEPTION + REASONING
    mme = score_mme([MmeRow(category=name, image="1", answer=label, label=label) for name in names for label in labels])
    # 100 (1 + 1) for each of ten and of four categories.
    assert (mme.perception, mme.reasoning, mme.missing) == (2000, 800, ())
    assert score_mmbench([replace(row, answer=row.label) for row in _mmbench_rows()]).circular_accuracy == 1


def test_no_rows_are_zero_and_say_so() -> None:
    pope, mme, mmbench, mmmu = score_pope([]), score_mme([]), score_mmbench([]), score_mmmu([])
    assert (pope.accuracy, pope.precision, pope.recall, pope.f1, pope.yes_ratio, pope.num_rows) == (0, 0, 0, 0, 0, 0)
    assert (mme.perception, mme.reasoning, mme.missing) == (0, 0, PERCEPTION + REASONING)
    assert (mmbench.circular_accuracy, mmbench.num_questions, mmmu.accuracy, mmmu.num_rows) == (0, 0, 0, 0)


def test_a_share_of_more_than_the_whole_is_refused() -> None:
    with pytest.raises(ValueError, match="part 3, whole 2"):
        share(3, 2)


def test_an_image_of_mme_has_two_questions() -> None:
    with pytest.raises(ValueError, match="image '2' of code_reasoning has 1 questions"):
        score_mme(_mme_rows()[:-1])
    with pytest.raises(ValueError, match="no category"):
        score_mme([replace(row, category="colour") for row in _mme_rows()])


def test_a_question_of_mmbench_has_every_rotation_once() -> None:
    rows = _mmbench_rows()
    with pytest.raises(ValueError, match=r"question 9 has 2 options, but rotations \[0\]"):
        score_mmbench(rows[:-1])
    with pytest.raises(ValueError, match=r"rotations \[0, 1, 1\]"):
        score_mmbench([*rows, rows[-1]])
    with pytest.raises(ValueError, match="groups"):
        score_mmbench([*rows[:-1], replace(rows[-1], group="logic")])
