"""Reward benchmarks on a few pairs, with every figure worked out beside it, by each way of counting."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.data.verdicts import Verdict
from orchestrator.evaluation.benchmarks.mm_rlhf_reward_bench import count_mm_rlhf_reward_bench
from orchestrator.evaluation.benchmarks.multimodal_reward_bench import count_multimodal_reward_bench
from orchestrator.evaluation.benchmarks.multimodal_reward_bench_2 import count_multimodal_reward_bench_2
from orchestrator.evaluation.benchmarks.pairs import Judgement, PairRow, any_of, one_order, shares_right
from orchestrator.evaluation.benchmarks.reward_bench_2 import RankedRow, count_reward_bench_2
from orchestrator.evaluation.benchmarks.vl_reward_bench import count_vl_reward_bench
from orchestrator.evaluation.figures import Counting
from orchestrator.evaluation.verdict_readings import READINGS

NAN, INF = float("nan"), float("inf")


def _said(better_first: bool, verdict: Verdict | None, sample: int = 0) -> Judgement:
    text = f"<answer>{verdict}</answer>" if verdict else "I cannot tell"
    return Judgement(better_first=better_first, text=text, verdict=verdict, sample=sample)


def _pair(name: str, first: Verdict | None, second: Verdict | None, **more: object) -> PairRow:
    """Judged greedily with the better response first, then second."""
    return replace(PairRow(id=name, judgements=(_said(True, first), _said(False, second))), **more)  # type: ignore[arg-type]


def _figures(counted: Counting) -> dict[str, float]:
    return {figure.name: figure.value for figure in counted.figures}


def _ten() -> list[PairRow]:
    """VL-RewardBench's ids: three general, four of hallucination, three of reasoning."""
    return [
        _pair("wildvision-battle-1", "1", "2"),  # both orders right
        _pair("jailbreak-1", "1", "1"),  # always the first: half right
        _pair("LRVInstruction-3", None, "2"),  # unreadable with the better one first
        _pair("hallucination_pair-1", "1", "2"),
        _pair("RLAIF-V-1", "2", "1"),  # wrong in both orders
        _pair("RLHF-V-1", "2", "2"),  # always the second
        _pair("RLHF-V-1", "1", "2"),  # an id that repeats
        _pair("mathverse_1", "1", None),
        _pair("mmmu_pro_test_Art_1", None, None),
        _pair("mmmu_pro_test_Art_2", "1", "2"),
    ]


def test_vl_reward_bench_strictly() -> None:
    found = count_vl_reward_bench(_ten())
    general, hallucination, reasoning = (1 + 0.5 + 0.5) / 3, (1 + 0 + 0.5 + 1) / 4, (0.5 + 0 + 1) / 3
    assert _figures(found) == pytest.approx(
        {
            "accuracy": 6 / 10,
            "macro": (general + hallucination + reasoning) / 3,
            "accuracy/general": general,
            "accuracy/hallucination": hallucination,
            "accuracy/reasoning": reasoning,
            "unreadable": 4 / 20,
            # Of 16 that can be read: with the better one first 6 of 8 say 1, with it second 2 of 8 do.
            "first_position": 8 / 16,
            "accuracy_readable": 12 / 16,
            # Both verdicts for the same response: right in rows 1, 4, 7 and 10, wrong in row 5.
            "consistent": 5 / 10,
            "both_right": 4 / 10,
        }
    )
    assert found.counts == {"rows": 10, "verdicts": 20, "unreadable": 4}
    assert len(found.units) == 10


def test_vl_reward_bench_as_others_count_it() -> None:
    # The better response first: unreadable is for the second, so wrong. Right: rows 1, 2, 4, 7, 8, 10.
    r1 = count_vl_reward_bench(_ten(), way="r1_released")
    assert r1["accuracy"] == 6 / 10
    # RLAIF-V and RLHF-V are general there: rows 1, 2, 3, 5, 6, 7, of which 1, 2 and 7 are right.
    assert (r1["accuracy/general"], r1["accuracy/hallucination"], r1["accuracy/reasoning"]) == (3 / 6, 1 / 1, 2 / 3)
    unified = {f.name: f.weight for f in count_vl_reward_bench(_ten(), way="unified_reward").figures}
    assert [unified[f"accuracy/{name}"] for name in ("general", "hallucination", "reasoning")] == [4, 3, 3]
    # One order of each: pairs whose chosen order is unreadable are left out.
    official = count_vl_reward_bench(_ten(), way="official", seed=1)
    chosen = [one_order(row, seed=1, key=i)[0] for i, row in enumerate(_ten())]
    readable = [one for one in chosen if one.verdict is not None]
    assert official["accuracy"] == sum(one.is_right for one in readable) / len(readable)
    assert official.notes[1] == f"{10 - len(readable)} pairs have an unreadable verdict and are left out"


def test_a_judge_that_always_says_one() -> None:
    rows = [_pair(f"mathverse_{i}", "1", "1") for i in range(50)]
    found = count_vl_reward_bench(rows)
    assert (found["accuracy"], found["first_position"], found["consistent"]) == (0.5, 1.0, 0.0)
    # Unshuffled it would be right every time.
    assert count_vl_reward_bench(rows, way="r1_released")["accuracy"] == 1.0


def test_a_judge_that_writes_nonsense_forty_times_in_a_hundred() -> None:
    draws = random.Random(0)

    def said(right: Verdict) -> Verdict | None:
        return None if draws.random() < 0.4 else right if draws.random() < 0.8 else ("2" if right == "1" else "1")

    rows = [_pair(f"mathverse_{i}", said("1"), said("2")) for i in range(2_000)]
    found = count_vl_reward_bench(rows)
    assert found["unreadable"] == pytest.approx(0.4, abs=0.02)
    assert found["first_position"] == pytest.approx(0.5, abs=0.02)
    assert found["accuracy_readable"] == pytest.approx(0.8, abs=0.02)
    assert found["accuracy"] == pytest.approx(0.6 * 0.8, abs=0.02)


def _sampled(first: list[Verdict | None], second: list[Verdict | None]) -> PairRow:
    """The greedy verdict, then those of samples, in each order."""
    said = [
        _said(order, verdict, i) for order, own in ((True, first), (False, second)) for i, verdict in enumerate(own)
    ]
    return PairRow(id="mathverse_1", judgements=tuple(random.Random(1).sample(said, len(said))))


def test_samples_vote_in_each_order_by_itself() -> None:
    # First order: greedy 2, votes 1 1 2. Second order: greedy 2, votes 1 None 2, which the greedy verdict decides.
    row = _sampled(["2", "1", "1", "2"], ["2", "1", None, "2"])
    assert shares_right([row]) == [0.5]
    assert shares_right([row], votes=3) == [1.0]
    assert shares_right([row], votes=1) == [0.5]  # first order right, second wrong
    assert any_of([row], k=1).value == 0.5
    assert any_of([row], k=3).value == 1.0
    with pytest.raises(ValueError, match="votes = 5, but 3 samples"):
        shares_right([row], votes=5)
    with pytest.raises(ValueError, match="fewer than k = 4 samples"):
        any_of([row], k=4)


@pytest.mark.parametrize(
    "counted",
    [
        count_vl_reward_bench,
        count_multimodal_reward_bench,
        count_multimodal_reward_bench_2,
        count_mm_rlhf_reward_bench,
    ],
)
def test_whoever_votes_is_told_what_any_of_the_samples_has_right(counted: Callable[..., Counting]) -> None:
    row = replace(_sampled(["2", "1", "2", "2"], ["1", "1", None, "1"]), media="mcq/a.png", category="reasoning")
    found = counted([row], votes=3)
    assert (found["accuracy"], found["any_of_3"]) == (0.0, 0.5)
    assert not any(figure.name.startswith("any_of") for figure in counted([row]).figures)


def test_votes_as_the_official_script_counts_them() -> None:
    """A majority of one order's samples; one that cannot be read takes the pair out."""
    rows = [
        _sampled(["1", "1", "1", "2"], ["2", "2", "2", "1"]),
        _sampled(["1", "1", None, "1"], ["2", None, "2", "2"]),
    ]
    found = count_vl_reward_bench(rows, way="official", votes=3)
    assert found["accuracy"] in (1.0, 0.0)
    assert {figure.name: figure.weight for figure in found.figures}["accuracy"] <= 2
    assert count_vl_reward_bench(rows[:1], way="official")["accuracy"] == 1.0


def test_a_pair_without_an_answer_is_named() -> None:
    with pytest.raises(ValueError, match="pair 'x' has neither a judgement nor rewards"):
        shares_right([PairRow(id="x")])
    with pytest.raises(ValueError, match="pair 'x' has no greedy judgement"):
        shares_right([PairRow(id="x", judgements=(_said(True, "1", 1),))])


def test_rewards_are_counted_by_the_same_ways() -> None:
    rows = [PairRow(id="RLHF-V-1", rewards=one) for one in ((2.0, 1.0), (1.0, 1.0), (NAN, 1.0), (0.0, 1.0))]
    found = {
        way: count_vl_reward_bench(rows, way=way) for way in ("strict", "official", "r1_released", "unified_reward")
    }
    assert {one["accuracy"] for one in found.values()} == {1 / 4}
    assert found["strict"].counts == {"rows": 4, "undecided": 2}
    names = {figure.name for figure in found["strict"].figures}
    assert "accuracy/hallucination" in names and "first_position" not in names
    assert "accuracy/general" in {figure.name for figure in found["r1_released"].figures}


def test_multimodal_reward_bench() -> None:
    rows = [
        _pair("vqa_1", "1", "2", category="vqa"),
        _pair("PAIRS-1", None, "2", category="safety"),
        _pair("hateful-1", "2", "2", category="safety", better_listed_first=False),
        _pair("math_1", "1", "1", category="reasoning"),
        _pair("livecode_1", None, None, category="reasoning", better_listed_first=False),
    ]
    strict = count_multimodal_reward_bench(rows)
    assert strict["accuracy"] == (1 + 0.5 + 0.5 + 0.5 + 0) / 5
    assert strict["accuracy/safety/bias"] == 0.5
    # The order of the file; unreadable ones are random letters of seed 123, whose first two are B... or A... below.
    letters = random.Random(123)
    drawn = ["1" if letters.random() < 0.5 else "2" for _ in range(2)]
    wanted = [True, drawn[0] == "1", True, True, drawn[1] == "2"]
    official = count_multimodal_reward_bench(rows, way="official")
    assert official["accuracy"] == sum(wanted) / 5
    assert official.notes == ("2 verdicts are random letters, as there",)
    assert count_multimodal_reward_bench(rows, way="r1_released")["accuracy"] == 2 / 5


def test_a_first_bracket_counts_before_a_second() -> None:
    said = Judgement(better_first=True, text="[[B]] not [[A]]", verdict=READINGS["bracketed"]("[[B]] not [[A]]"))
    row = PairRow(id="x", category="vqa", judgements=(said,))
    assert count_multimodal_reward_bench([row])["accuracy"] == 0.0
    assert count_multimodal_reward_bench([row], way="official")["accuracy"] == 1.0


def test_multimodal_reward_bench_2() -> None:
    rows = [
        _pair("t1", "1", "2", category="t2i"),
        _pair("t2", None, "2", category="t2i"),
        _pair("r1", "2", None, category="reasoning"),
    ]
    strict, official = (count_multimodal_reward_bench_2(rows, way=way) for way in ("strict", "official"))
    assert (strict["accuracy"], strict["accuracy/t2i"], strict["accuracy/reasoning"]) == (1.5 / 3, 1.5 / 2, 0.0)
    assert strict["consistent"] == 1 / 3
    # Four verdicts can be read, three of them are right: without the others the accuracy rises.
    assert (official["accuracy"], official["accuracy/t2i"], official["accuracy/reasoning"]) == (3 / 4, 1.0, 0.0)
    assert official.notes == ("2 unreadable verdicts are left out, which raises the accuracy",)


@pytest.mark.parametrize(
    ("reading", "text", "expected"),
    [
        ("tagged", "<answer>2</answer>", "2"),
        # R1-Reward
        ("tagged", "<think>\nResponse 1 sees a dog, 2 a cat.\n</think><answer>2</answer>", "2"),
        ("tagged", "<think>Response 1 is better.</think>", None),
        # UnifiedReward-Think
        (
            "answer_is_better",
            "<think>Fluency: Answer 1 is better. Truth: Answer 2 is.</think>\n<answer>Answer 2 is better</answer>",
            "2",
        ),
        ("answer_is_better", "<answer>Answer 1 is better</answer><answer>Answer 1 is better</answer>", None),
        ("answer_is_better", "Answer 1 is better. <answer>the second</answer>", None),
        ("answer_is_better", "So answer 1 is better.", "1"),
        ("answer_is_better", "Answer 1 is better, or Answer 2 is better?", None),
        ("answer_is_better", "The first.", None),
        ("bracketed", "[[B]]", "2"),
        ("bracketed", "[[A]] or [[B]]", None),
        ("bracketed", "A", None),
        ("overall_judgment", "**Overall Judgment**\nAnswer 1 is slightly better.", "1"),
        ("overall_judgment", "Therefore, Answer 1 ... Answer 2 is the better one", "2"),
        ("overall_judgment", "Overall Judgment: Answer 3 is better", None),
        ("overall_judgment", "Answer 1 is better", None),
    ],
)
def test_what_judges_are_asked_to_write_is_read_strictly(reading: str, text: str, expected: str | None) -> None:
    assert READINGS[reading](text) == expected


def test_the_best_of_four() -> None:
    rows = [
        RankedRow(id="1", subset="Math", rewards=(3.0, 1.0, 2.0, 0.0), num_correct=1),  # the best
        RankedRow(id="2", subset="Math", rewards=(3.0, 3.0, 2.0, 0.0), num_correct=1),  # one of two that are
        RankedRow(id="3", subset="Math", rewards=(1.0, 3.0, 2.0, 0.0), num_correct=1),
        RankedRow(id="4", subset="Focus", rewards=(3.0, 1.0, NAN, 0.0), num_correct=1),  # no number
        RankedRow(id="5", subset="Focus", rewards=(1.0, 1.0, 1.0, 1.0), num_correct=1),
    ]
    found = count_reward_bench_2(rows)
    assert (found["score/Math"], found["score/Focus"]) == ((1 + 0.5 + 0) / 3, 0.25 / 2)
    assert found["score"] == pytest.approx((0.5 + 0.125) / 2, abs=1e-15)
    assert found.counts == {"rows": 5, "undecided": 1}
    assert found.notes == (
        "no rows of Factuality, Precise IF, Safety, Ties: the score is not comparable with published ones",
    )


def test_ties_by_accuracy_and_margins() -> None:
    rows = [
        # 1: tied: right 5 and 4, wrong 1: spread 1, lead 3. ref: right 3, wrong 1: lead 2.
        RankedRow(id="tied:1", subset="Ties", rewards=(5.0, 4.0, 1.0), num_correct=2),
        RankedRow(id="ref:1", subset="Ties", rewards=(3.0, 1.0, 0.0), num_correct=1),
        # 2: tied: right 5 and 2, wrong 1: spread 3, lead 1. ref: lead −1.
        RankedRow(id="tied:2", subset="Ties", rewards=(5.0, 2.0, 1.0), num_correct=2),
        RankedRow(id="ref:2", subset="Ties", rewards=(1.0, 2.0), num_correct=1),
        # 3: only tied, and wrong; it is in no margin.
        RankedRow(id="tied:3", subset="Ties", rewards=(1.0, 2.0, 3.0), num_correct=2),
    ]
    found = count_reward_bench_2(rows)
    tied, ref, preferred, hard = 2 / 3, 1 / 2, 1 / 2, 1 / 2
    margin = (math.tanh(2 / 1 - 1) + math.tanh(-1 / 3 - 1)) / 2
    wanted = 0.3 * tied + 0.3 * ref + 0.2 * preferred + 0.2 * hard + 0.01 * margin
    assert found["score/Ties"] == found["score"] == pytest.approx(wanted, abs=1e-15)
    assert (found["ties/tied"], found["ties/ref"], found["ties/preferred_hard"]) == (tied, ref, hard)
    assert found.units == ("Ties 1", "Ties 2", "Ties 3")


def test_equal_right_answers_have_no_spread() -> None:
    rows = [
        RankedRow(id="tied:1", subset="Ties", rewards=(4.0, 4.0, 1.0), num_correct=2),
        RankedRow(id="ref:1", subset="Ties", rewards=(4.0, INF), num_correct=1),
        RankedRow(id="tied:2", subset="Ties", rewards=(4.0, NAN, 1.0), num_correct=2),
        RankedRow(id="ref:2", subset="Ties", rewards=(4.0, 1.0), num_correct=1),
    ]
    found = count_reward_bench_2(rows)
    # Question 1: lead 3 above spread 0, but the ref's lead is −∞: −1. Question 2 has a NaN: −1.
    assert (found["ties/preferred"], found["ties/preferred_hard"], found["ties/margin"]) == (1 / 2, 0.0, -1.0)
    with pytest.raises(ValueError, match="tie 'other:1': expected 'ref:N' or 'tied:N'"):
        count_reward_bench_2([replace(rows[0], id="other:1")])
    with pytest.raises(ValueError, match="row 'ref:1' has 2 right responses of 2"):
        count_reward_bench_2([replace(rows[1], num_correct=2)])
