"""The conformance vectors of StableReinforce, each number derived in a comment beside it."""

import math

import pytest
import torch

from algorithms.maths.advantages import (
    discounted_returns,
    filter_advantages,
    place_terminal_reward,
    token_moments,
    whiten,
)
from algorithms.maths.aggregation import Aggregation, token_weights, weighted
from algorithms.maths.policy_losses import PolicyLoss, ppo_clip_loss_map

NAN = float("nan")
MASK = torch.tensor([[True, True, True], [True, True, False]])


def _advantages() -> tuple[torch.Tensor, float, float]:
    rewards = place_terminal_reward(
        torch.tensor([2.0, 0.5], dtype=torch.float64),
        torch.tensor([[0.1, -0.05, 0.2], [0.0, 0.3, NAN]], dtype=torch.float64),
        MASK,
        kl_coef=1e-3,
        reward_clip=10.0,
    )
    returns = discounted_returns(rewards, MASK, gamma=1.0)
    # Row 0 from the back: 2 - 0.0002, + 0.00005, - 0.0001. Row 1: 0.5 - 0.0003, - 0.
    expected = torch.tensor([[1.99975, 1.99985, 1.9998], [0.4997, 0.4997, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(returns, expected, rtol=0, atol=1e-12)
    moments = token_moments(returns, MASK)
    return whiten(returns, MASK, moments), moments.mean, moments.variance


def test_reward_to_whitened_advantage() -> None:
    z, mean, variance = _advantages()
    # (1.99975 + 1.99985 + 1.9998 + 0.4997 + 0.4997) / 5
    assert mean == pytest.approx(1.39976, abs=1e-12)
    assert variance == pytest.approx(0.540072, abs=5e-7)
    expected = torch.tensor([[0.816429, 0.816565, 0.816497], [-1.224745, -1.224745, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(z, expected, rtol=0, atol=5e-7)


def _loss(*, preclip: bool) -> PolicyLoss:
    return ppo_clip_loss_map(
        torch.tensor([[-1.1, -1.5, -0.5], [-0.9, -0.1, NAN]], dtype=torch.float64)
        - torch.tensor([[-1.0, -2.0, -0.5], [-0.7, -9.0, NAN]], dtype=torch.float64),
        _advantages()[0],
        MASK,
        clip_low=0.2,
        clip_high=0.2,
        preclip_min=1e-3 if preclip else None,
        preclip_max=1e3 if preclip else None,
    )


def _scalar(loss: PolicyLoss, mode: Aggregation) -> float:
    weights = token_weights(MASK, mode=mode, global_num_sequences=2, global_num_tokens=5)
    return weighted(loss.loss, weights).sum().item()


def test_policy_loss_with_pre_clip() -> None:
    loss = _loss(preclip=True)
    # e^-0.1 z, 1.2 z (clipped), z; then e^-0.2 below 0.8 is no gain for a negative advantage, and e^8.9 is cut at 1000.
    expected = torch.tensor([[-0.738735, -0.979878, -0.816497], [1.002736, 1224.7449, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(loss.loss, expected, rtol=0, atol=5e-5)
    assert loss.preclip_hit.tolist() == [[False, False, False], [False, True, False]]
    assert loss.clip_hit.tolist() == [[False, True, False], [False, False, False]]
    assert _scalar(loss, "seq-mean-token-mean") == pytest.approx(306.01438, abs=5e-6)
    assert _scalar(loss, "token-mean") == pytest.approx(244.64250, abs=5e-6)


def test_policy_loss_without_pre_clip_is_dominated_by_one_drifted_token() -> None:
    loss = _loss(preclip=False)
    # e^8.9 * 1.224745
    assert loss.loss[1, 1].item() == pytest.approx(8979.797, abs=5e-4)
    assert not loss.preclip_hit.any()
    assert _scalar(loss, "seq-mean-token-mean") == pytest.approx(2244.777, abs=5e-4)


@pytest.mark.parametrize(
    ("num_right", "num_wrong", "mean", "z_wrong", "sigma3_keeps"),
    [
        (12, 4, 1.625, -math.sqrt(3.0), True),  # z = -sqrt(p / (1 - p)), p = 3/4
        (15, 1, 1.90625, -math.sqrt(15.0), False),
    ],
)
def test_released_filter_drops_wrong_answers_that_the_papers_rule_keeps(
    num_right: int, num_wrong: int, mean: float, z_wrong: float, sigma3_keeps: bool
) -> None:
    returns = torch.tensor([[2.0]] * num_right + [[0.5]] * num_wrong, dtype=torch.float64)
    mask = torch.ones_like(returns, dtype=torch.bool)
    moments = token_moments(returns, mask)
    z = whiten(returns, mask, moments)
    paper = filter_advantages(z, mask, rule="sigma3", raw_mean=moments.mean)
    released = filter_advantages(z, mask, rule="r1_released", raw_mean=moments.mean)
    assert moments.mean == pytest.approx(mean)
    assert z[-1].item() == pytest.approx(z_wrong)
    assert bool(paper.advantages[-1]) == sigma3_keeps
    assert paper.filtered_neg_frac == (0.0 if sigma3_keeps else 1.0)
    assert (released.advantages[-1].item(), released.filtered_neg_frac) == (0.0, 1.0)
    assert (paper.filtered_pos_frac, released.filtered_pos_frac) == (0.0, 0.0)


def _released_keeps_wrong_answers(accuracy: float) -> bool:
    """Rewards 2 and 0.5 at this share of right answers: z of a wrong one, and the window's lower end."""
    z = torch.tensor([[-math.sqrt(accuracy / (1 - accuracy))]])
    mean = 2.0 * accuracy + 0.5 * (1 - accuracy)
    kept = filter_advantages(z, torch.ones_like(z, dtype=torch.bool), rule="r1_released", raw_mean=mean)
    return bool(kept.advantages.any())


def test_released_filter_turns_positive_only_above_an_accuracy_of_0_685() -> None:
    # sqrt(p / (1 - p)) = 3 - (2 p + 0.5 (1 - p)) = 2.5 - 1.5 p has its root between the two.
    assert _released_keeps_wrong_answers(0.684)
    assert not _released_keeps_wrong_answers(0.686)
