"""MM-RLHF-RewardBench on a hand-made file, with every figure worked out beside it."""

import random

import pytest

from orchestrator.evaluation.benchmarks.reward_bench import RewardBenchRow, score_reward_bench

NAN, INF = float("nan"), float("inf")


def _rows() -> list[RewardBenchRow]:
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
    return [
        RewardBenchRow(id=name, media=media, chosen_reward=chosen, rejected_reward=rejected)
        for name, media, chosen, rejected in scored
    ]


def test_eight_pairs_of_five_instructions() -> None:
    result = score_reward_bench(_rows(), seed=0)
    figures = {
        name: (f.accuracy, f.accuracy_plus, f.num_pairs, f.num_ids)
        for name, f in {**result.categories, "overall": result.overall}.items()
    }
    assert figures == {
        "mcq": (3 / 4, 1 / 2, 4, 2),
        "short": (1 / 2, 1 / 2, 2, 2),
        "video": (0.0, 0.0, 2, 1),
        # 4 of 8 pairs and 2 of 5 instructions; the means of the categories would be 5/12 and 1/3.
        "overall": (4 / 8, 2 / 5, 8, 5),
    }
    assert result.missing == ("long", "safety")
    assert result.num_undecided == 3


def test_figures_and_intervals_do_not_depend_on_the_order_of_the_rows() -> None:
    expected = score_reward_bench(_rows(), seed=1, num_resamples=100)
    for shuffle in range(10):
        rows = random.Random(shuffle).sample(_rows(), len(_rows()))
        assert score_reward_bench(rows, seed=1, num_resamples=100) == expected


def test_intervals_are_of_the_seed_and_hold_the_figure() -> None:
    first, again, other = (score_reward_bench(_rows(), seed=seed, num_resamples=200).overall for seed in (1, 1, 2))
    assert first == again
    assert first.accuracy_interval != other.accuracy_interval
    low, high = first.accuracy_plus_interval
    assert 0.0 <= low < first.accuracy_plus < high <= 1.0


def _plain(name: str, is_right: bool) -> RewardBenchRow:
    return RewardBenchRow(id=name, media=f"long/{name}.png", chosen_reward=float(is_right), rejected_reward=0.5)


def test_interval_is_as_wide_as_the_binomial_one() -> None:
    # 100 instructions of one pair each, half of them right: 0.5 ± 1.96 sqrt(0.25 / 100) = [0.402, 0.598].
    rows = [_plain(f"q{i:03}", i % 2 == 0) for i in range(100)]
    overall = score_reward_bench(rows, seed=0).overall
    assert overall.accuracy_interval == overall.accuracy_plus_interval
    assert overall.accuracy_interval == pytest.approx((0.402, 0.598), abs=0.0125)


def test_instructions_are_drawn_whole() -> None:
    # One instruction with 9 right pairs, one with 1 wrong: a draw of two gives 1, 0.9 or 0, never anything between.
    rows = [_plain("many", True)] * 9 + [_plain("one", False)]
    overall = score_reward_bench(rows, seed=0).overall
    assert overall.accuracy == 0.9
    assert overall.accuracy_interval == (0.0, 1.0)


def test_an_instruction_alone_leaves_no_doubt() -> None:
    overall = score_reward_bench(_rows()[2:4], seed=0).overall
    assert (overall.accuracy_interval, overall.accuracy_plus_interval) == ((0.5, 0.5), (0.0, 0.0))


def test_no_rows_are_zero_and_say_so() -> None:
    result = score_reward_bench([], seed=0)
    assert (result.overall.accuracy, result.overall.num_pairs, result.overall.accuracy_interval) == (0.0, 0, (0.0, 0.0))
    assert len(result.missing) == 5


@pytest.mark.parametrize("media", ["", "belong.png", "/short/a.png", "data/short/a.png", "shorts/a.png", "../short/a"])
def test_a_path_must_begin_with_its_category(media: str) -> None:
    row = RewardBenchRow(id="a", media=media, chosen_reward=1.0, rejected_reward=0.0)
    with pytest.raises(ValueError, match="of id 'a' must begin with one of the folders"):
        score_reward_bench([row], seed=0)


def test_an_interval_needs_a_draw() -> None:
    with pytest.raises(ValueError, match="num_resamples = 0 must be at least 1"):
        score_reward_bench(_rows(), seed=0, num_resamples=0)
