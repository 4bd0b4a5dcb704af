"""From rewards to advantages, by hand."""

import math
from typing import get_args

import pytest
import torch

from algorithms.maths.advantages import (
    GroupBaseline,
    Moments,
    discounted_returns,
    filter_advantages,
    group_advantages,
    place_terminal_reward,
    token_moments,
    whiten,
)

NAN = float("nan")


def test_terminal_reward_is_clipped_and_lands_on_the_last_action() -> None:
    mask = torch.tensor([[False, True, True, False], [False, True, False, True], [False, False, False, False]])
    rewards = place_terminal_reward(
        torch.tensor([25.0, -14.0, 1.0]), torch.zeros(3, 4), mask, kl_coef=0.0, reward_clip=10.0
    )
    assert rewards.tolist() == [[0.0, 0.0, 10.0, 0.0], [0.0, 0.0, 0.0, -10.0], [0.0, 0.0, 0.0, 0.0]]


def test_unclipped_reward_is_left_alone_and_kl_is_charged_per_action() -> None:
    mask = torch.tensor([[False, True, True]])
    rewards = place_terminal_reward(
        torch.tensor([25.0]), torch.tensor([[NAN, 2.0, -4.0]]), mask, kl_coef=0.5, reward_clip=None
    )
    assert rewards.tolist() == [[0.0, -1.0, 27.0]]


def test_returns_discount_per_action_and_step_over_other_tokens() -> None:
    mask = torch.tensor([[False, True, False, True, True]])
    returns = discounted_returns(torch.tensor([[NAN, 1.0, NAN, 2.0, 4.0]]), mask, gamma=0.5)
    # 4; 2 + 4/2; 1 + 4/2
    assert returns.tolist() == [[0.0, 3.0, 0.0, 4.0, 4.0]]


@pytest.mark.parametrize("gamma", [-0.1, 1.1])
def test_gamma_outside_the_unit_interval_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=rf"gamma = {gamma} is outside \[0, 1\]"):
        discounted_returns(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), gamma=gamma)


def test_moments_count_tokens_so_a_long_response_weighs_more() -> None:
    values = torch.tensor([[3.0, 3.0, 3.0], [7.0, NAN, NAN]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    moments = token_moments(values, mask)
    assert (moments.mean, moments.variance) == (4.0, 3.0)
    # (3 - 4) / sqrt 3 and (7 - 4) / sqrt 3
    expected = torch.tensor([[-1.0, -1.0, -1.0], [3.0, 0.0, 0.0]]) / math.sqrt(3.0)
    torch.testing.assert_close(whiten(values, mask, moments), expected)


def test_moments_of_many_rows_are_to_the_bit_those_of_their_tokens_one_behind_the_other() -> None:
    drawn = torch.Generator().manual_seed(0)
    values, mask = torch.randn(700, 9, generator=drawn), torch.rand(700, 9, generator=drawn) < 0.5
    chosen = values[mask].double()
    variance = (chosen - chosen.mean()).square().sum().item() / len(chosen)
    assert token_moments(values, mask) == Moments(chosen.mean().item(), variance)


def test_no_tokens_have_no_moments() -> None:
    assert token_moments(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)) == Moments(0.0, 0.0)


def test_nonfinite_return_is_named_by_row_and_token() -> None:
    values = torch.tensor([[NAN, 1.0], [0.0, NAN]])
    with pytest.raises(ValueError, match="return of row 1, token 1 is nan: it must be finite, or masked out"):
        token_moments(values, torch.tensor([[False, True], [True, True]]))


def test_groups_compare_siblings_only() -> None:
    scores, group_ids = torch.tensor([1.0, 0.0, 2.0, 5.0, 5.0]), torch.tensor([7, 3, 7, 3, 7])
    # Group 7: 1, 2, 5 less the means of the others, 3.5, 3, 1.5. Group 3: 0 - 5 and 5 - 0.
    rloo = group_advantages(scores, group_ids, baseline="rloo")
    torch.testing.assert_close(rloo, torch.tensor([-2.5, -5.0, -1.0, 5.0, 3.5]))
    grpo = group_advantages(scores, group_ids, baseline="grpo")
    # Group 3: ±2.5 over a sample deviation of 5 / sqrt 2
    spread = 2.5 / (5.0 / math.sqrt(2.0) + 1e-4)
    torch.testing.assert_close(grpo[[1, 3]], torch.tensor([-spread, spread]))
    assert grpo[[0, 2, 4]].sum().item() == pytest.approx(0.0, abs=1e-6)
    # Group 7: mean 8/3; group 3: mean 2.5
    mean = group_advantages(scores, group_ids, baseline="mean")
    torch.testing.assert_close(mean, torch.tensor([-5 / 3, -2.5, -2 / 3, 2.5, 7 / 3]))


@pytest.mark.parametrize("baseline", get_args(GroupBaseline))
def test_rollout_without_a_sibling_has_no_advantage(baseline: GroupBaseline) -> None:
    assert group_advantages(torch.tensor([1.0, 4.0]), torch.tensor([0, 1]), baseline=baseline).tolist() == [0.0, 0.0]


def test_filter_zeroes_and_counts_each_sign() -> None:
    z = torch.tensor([[3.0, 3.5, -3.5, -1.0], [9.0, 1.0, 1.0, 0.0]])
    mask = torch.tensor([[True, True, True, True], [False, True, True, True]])
    result = filter_advantages(z, mask, rule="sigma3", raw_mean=0.0)
    assert result.advantages.tolist() == [[3.0, 0.0, 0.0, -1.0], [0.0, 1.0, 1.0, 0.0]]
    assert (result.filtered_pos_frac, result.filtered_neg_frac) == (0.25, 0.5)


def test_no_filter_keeps_everything() -> None:
    z, mask = torch.tensor([[30.0, -30.0]]), torch.ones(1, 2, dtype=torch.bool)
    result = filter_advantages(z, mask, rule="none", raw_mean=0.0)
    assert result.advantages.tolist() == [[30.0, -30.0]]
    assert (result.filtered_pos_frac, result.filtered_neg_frac) == (0.0, 0.0)


def test_released_filter_never_keeps_more_than_ten_sigmas() -> None:
    # The window [6, 12] would keep both.
    z, mask = torch.tensor([[9.0, 11.0]]), torch.ones(1, 2, dtype=torch.bool)
    assert filter_advantages(z, mask, rule="r1_released", raw_mean=9.0).advantages.tolist() == [[9.0, 0.0]]
