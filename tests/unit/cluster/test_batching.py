"""Micro-batches, prompt order and seeds on cases small enough to check by hand."""

import json

import pytest

from orchestrator.cluster.microbatches import plan_microbatches
from orchestrator.errors import GuardStop
from orchestrator.run.cursor import PromptCursor, PromptPick, sample_seed, shuffled_order


def test_equal_samples_are_shared_equally() -> None:
    # 200 samples of 100 tokens, 163 fit: two ranks need one micro-batch each, and 100 + 100 beats 163 + 37.
    plan = plan_microbatches([100] * 200, num_ranks=2, token_budget=16_384)
    assert [[len(batch) for batch in batches] for batches in plan] == [[100], [100]]


def test_long_and_short_samples_are_not_padded_to_each_other() -> None:
    # The nine short ones cost 90 together; any of them beside the long one would cost 2 x 100.
    assert plan_microbatches([10] * 5 + [100] + [10] * 4, num_ranks=1, token_budget=100) == [
        [[5], [0, 1, 2, 3, 4, 6, 7, 8, 9]]
    ]


def test_the_costliest_micro_batch_goes_to_the_rank_with_the_least_so_far() -> None:
    # By cost 9, 8, 7, 6 in two rounds of two: rank 0 has 9, so in round two the 7 goes to rank 1.
    plan = plan_microbatches([9, 8, 7, 6], num_ranks=2, token_budget=9)
    assert plan == [[[0], [3]], [[1], [2]]]


def test_a_sample_above_the_budget_is_named() -> None:
    with pytest.raises(GuardStop) as caught:
        plan_microbatches([5, 12], num_ranks=1, token_budget=10)
    assert str(caught.value) == "sample 1 has 12 tokens, more than policy.tokens_per_microbatch = 10"


def test_a_rank_without_samples_gets_an_empty_micro_batch() -> None:
    assert plan_microbatches([5], num_ranks=3, token_budget=10) == [[[0]], [[]], [[]]]
    assert plan_microbatches([], num_ranks=2, token_budget=10) == [[], []]


def test_what_cannot_be_shared_equally_leaves_the_last_of_some_ranks_empty() -> None:
    # 13 of 10 tokens each make 13 micro-batches, 7 on the one rank and 6 on the other.
    plan = plan_microbatches([10] * 13, num_ranks=2, token_budget=10)
    assert [len(batches) for batches in plan] == [7, 7]
    assert [batch for batches in plan for batch in batches if not batch] == [[]]


def test_a_batch_that_spans_epochs_numbers_a_prompts_second_place() -> None:
    cursor = PromptCursor(num_prompts=2, seed=0)
    picks, after = cursor.take(5)
    assert [pick.repeat for pick in picks] == [0, 0, 1, 1, 2]
    assert (after.epoch, after.position) == (2, 1)
    assert len(set(picks)) == 5


def test_a_cursor_starts_a_new_epoch_at_its_end() -> None:
    picks, after = PromptCursor(num_prompts=3, seed=5).take(3)
    assert picks == [PromptPick(index, 0) for index in shuffled_order(3, seed=5, epoch=0)]
    assert (after.epoch, after.position) == (1, 0)


def test_a_cursor_survives_json() -> None:
    _, cursor = PromptCursor(num_prompts=7, seed=3).take(4)
    again = PromptCursor.from_json(json.loads(json.dumps(cursor.to_json())))
    assert again == cursor and again.take(9) == cursor.take(9)


@pytest.mark.parametrize(("num_prompts", "position"), [(0, 0), (3, 3), (3, -1)])
def test_a_cursor_outside_its_data_is_refused(num_prompts: int, position: int) -> None:
    with pytest.raises(ValueError, match=f"position = {position} "):
        PromptCursor(num_prompts=num_prompts, seed=0, position=position)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [shuffled_order(50, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_sample_seeds_differ_in_every_argument_and_fit_63_bits() -> None:
    keys = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1), (0, "a', 0", 0, 0)]
    seeds = [sample_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds) and max(seeds) >= 2**62


def test_seeds_and_orders_never_change() -> None:
    # Recorded once: a checkpoint written by any version must resume to the same samples.
    assert sample_seed(0, "train-000012", 3, 40) == 4633130773412338494
    assert shuffled_order(8, seed=0, epoch=0) == [2, 1, 6, 4, 7, 5, 3, 0]
