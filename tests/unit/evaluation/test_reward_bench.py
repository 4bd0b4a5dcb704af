"""MM-RLHF-RewardBench on a hand-made file, with every figure worked out beside it."""

import random

import pytest

from orchestrator.evaluation.benchmarks.mm_rlhf_reward_bench import CATEGORIES, count_mm_rlhf_reward_bench
from orchestrator.evaluation.benchmarks.pairs import Judgement, PairRow
from orchestrator.evaluation.statistics import intervals

NAN, INF = float("nan"), float("inf")


def _rows() -> list[PairRow]:
    scored = [
        ("a", "mcq/a.png", 2.0, 1.0),  # a: both right
        ("a", "mcq/a.png", 0.5, -0.5),
        ("b", "mcq/b.png", 2.0, 1.0),  # b: one of two right
        ("b", "mcq/b.png", 1.0, 2.0),
        ("c", "short/belong.png", 1.0, 1.0),  # c: equal rewards are wrong; short, though "long" is in its name
        ("d", "./short/d.png", INF, 1.0),  # d: right
        ("e", "video/e", NAN, 1.0),  # e: a NaN is wrong on either side
        ("e", "video/e", 1.0, NAN),
    ]
    return [PairRow(id=name, media=media, rewards=(chosen, rejected)) for name, media, chosen, rejected in scored]


def test_eight_pairs_of_five_instructions() -> None:
    found = count_mm_rlhf_reward_bench(_rows())
    by_name = {figure.name: figure for figure in found.figures}
    figures = {
        name or "overall": tuple(
            number
            for kind in ("accuracy", "accuracy_plus")
            for number in (by_name[f"{kind}{name}"].value, by_name[f"{kind}{name}"].weight)
        )
        for name in ("/mcq", "/short", "/video", "")
    }
    assert figures == {
        "/mcq": (3 / 4, 4, 1 / 2, 2),
        "/short": (1 / 2, 2, 1 / 2, 2),
        "/video": (0.0, 2, 0.0, 1),
        # 4 of 8 pairs and 2 of 5 instructions; the means of the categories would be 5/12 and 1/3.
        "overall": (4 / 8, 8, 2 / 5, 5),
    }
    assert found.notes == ("no rows of long, safety: the overall figures compare with no published ones",)
    assert found.counts == {"rows": 8, "undecided": 3, "ids": 5}


def test_figures_and_intervals_do_not_depend_on_the_order_of_the_rows() -> None:
    expected = intervals(count_mm_rlhf_reward_bench(_rows()), seed=1, num_resamples=100)
    for shuffle in range(10):
        rows = random.Random(shuffle).sample(_rows(), len(_rows()))
        assert intervals(count_mm_rlhf_reward_bench(rows), seed=1, num_resamples=100) == expected


def test_verdicts_in_both_orders() -> None:
    """An instruction is right only if every verdict about its pairs is; a pair counts by the share that is."""

    def pair(name: str, first: str | None, second: str | None) -> PairRow:
        said = ((True, first), (False, second))
        return PairRow(
            id=name,
            media="mcq/a.png",
            judgements=tuple(
                Judgement(better_first=b, verdict=v, text=f"<answer>{v}</answer>")  # type: ignore[arg-type]
                for b, v in said
            ),
        )

    rows = [pair("a", "1", "2"), pair("a", "1", "1"), pair("b", "1", "2"), pair("c", None, "2")]
    found = count_mm_rlhf_reward_bench(rows)
    assert (found["accuracy"], found["accuracy_plus"]) == ((1 + 0.5 + 1 + 0.5) / 4, 1 / 3)
    assert (found["unreadable"], found["first_position"]) == (1 / 8, 4 / 7)
    # With the better response first, as R1-Reward's script has it, only the unreadable one is wrong.
    released = count_mm_rlhf_reward_bench(rows, way="r1_released")
    assert (released["accuracy"], released["accuracy_plus"]) == (3 / 4, 2 / 3)


def _plain(name: str, is_right: bool) -> PairRow:
    return PairRow(id=name, media=f"long/{name}.png", rewards=(float(is_right), 0.5))


def test_interval_is_as_wide_as_the_binomial_one() -> None:
    # 100 instructions of one pair each, half of them right: 0.5 ± 1.96 sqrt(0.25 / 100) = [0.402, 0.598].
    rows = [_plain(f"q{i:03}", i % 2 == 0) for i in range(100)]
    found = intervals(count_mm_rlhf_reward_bench(rows), seed=0)
    assert found["accuracy"] == found["accuracy_plus"] == pytest.approx((0.402, 0.598), abs=0.0125)


def test_instructions_are_drawn_whole() -> None:
    # One instruction with 9 right pairs, one with 1 wrong: a draw of two gives 1, 0.9 or 0, never anything between.
    rows = [_plain("many", True)] * 9 + [_plain("one", False)]
    found = count_mm_rlhf_reward_bench(rows)
    assert found["accuracy"] == 0.9
    assert intervals(found, seed=0)["accuracy"] == (0.0, 1.0)


def test_an_instruction_alone_leaves_no_doubt() -> None:
    found = intervals(count_mm_rlhf_reward_bench(_rows()[2:4]), seed=0)
    assert (found["accuracy"], found["accuracy_plus"]) == ((0.5, 0.5), (0.0, 0.0))


def test_no_rows_are_zero_and_say_so() -> None:
    found = count_mm_rlhf_reward_bench([])
    assert (found["accuracy"], found.counts["rows"]) == (0.0, 0)
    assert found.notes == (f"no rows of {', '.join(CATEGORIES)}: the overall figures compare with no published ones",)


@pytest.mark.parametrize("media", ["", "belong.png", "/short/a.png", "data/short/a.png", "shorts/a.png", "../short/a"])
def test_a_path_must_begin_with_its_category(media: str) -> None:
    row = PairRow(id="a", media=media, rewards=(1.0, 0.0))
    with pytest.raises(ValueError, match="of id 'a' must begin with one of the folders"):
        count_mm_rlhf_reward_bench([row])
