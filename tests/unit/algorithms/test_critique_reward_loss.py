"""The critique reward model's pair loss by hand, and what it refuses."""

import math

import pytest
import torch
from torch import Tensor

from algorithms.maths.critique_reward_loss import critique_pair_loss, mean_weights

NAN, INF = float("nan"), float("inf")
WEIGHTS = {"preference_weight": 1.0, "tie_weight": 1.0, "centre_weight": 1.0}
TIES = torch.tensor([False, True])


def _doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_each_kind_of_pair_pays_its_own_term_and_the_centring() -> None:
    # Gaps 1 and 3, sums 5 and -1.
    result = critique_pair_loss(
        _doubles(3.0, 1.0),
        _doubles(2.0, -2.0),
        TIES,
        preference_weight=2.0,
        tie_weight=0.5,
        centre_weight=0.01,
        margins=_doubles(0.25, 100.0),
    )
    preference = 2.0 * math.log1p(math.exp(-0.75)) + 0.01 * 25
    assert result.loss.tolist() == pytest.approx([preference, 0.5 * 9 + 0.01 * 1])
    # Rewards are those of the model; the required margin is no part of them.
    assert result.margin.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("dropped", list(WEIGHTS))
def test_a_weight_of_zero_drops_its_term_alone(dropped: str) -> None:
    # Gaps 0 and 2, sums 2 and 0.
    sides = _doubles(1.0, 1.0), _doubles(1.0, -1.0)
    terms = {
        "preference_weight": _doubles(math.log(2), 0.0),
        "tie_weight": _doubles(0.0, 4.0),
        "centre_weight": _doubles(4.0, 0.0),
    }
    whole, rest = (
        critique_pair_loss(*sides, TIES, margins=None, **w).loss for w in (WEIGHTS, WEIGHTS | {dropped: 0.0})
    )
    torch.testing.assert_close(whole - rest, terms[dropped], rtol=1e-12, atol=1e-12)


def test_only_the_loss_has_gradient() -> None:
    chosen = _doubles(1.0, 1.0).requires_grad_()
    result = critique_pair_loss(chosen, _doubles(0.0, 0.0), TIES, margins=None, **WEIGHTS)
    assert result.loss.requires_grad
    assert not result.chosen_rewards.requires_grad


@pytest.mark.parametrize("name", list(WEIGHTS))
@pytest.mark.parametrize("value", [-1.0, NAN, INF])
def test_a_weight_negative_or_not_finite_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} = .* must be finite and not negative"):
        critique_pair_loss(_doubles(0.0, 0.0), _doubles(0.0, 0.0), TIES, margins=None, **(WEIGHTS | {name: value}))


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        # In a sum of shares 1/4 a mean over one preference needs its 4 back, one over three ties 4/3.
        ((1.0, 3.0), (2.0 * 4, 2.0 * 0.5 * 4 / 3)),
        ((0.25, 0.75), (2.0 * 4, 2.0 * 0.5 * 4 / 3)),
        ((4.0, 0.0), (2.0, 0.0)),
        ((0.0, 4.0), (0.0, 2.0 * 0.5)),
    ],
)
def test_weights_turn_a_sum_over_all_pairs_into_a_mean_over_each_kind(
    shares: tuple[float, float], expected: tuple[float, float]
) -> None:
    assert mean_weights(*shares, score_weight=2.0, tie_weight=0.5) == pytest.approx(expected)


@pytest.mark.parametrize("shares", [(0.0, 0.0), (-1.0, 2.0), (NAN, 1.0), (1.0, INF)])
def test_shares_of_no_pairs_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="shares of preferences and ties"):
        mean_weights(*shares, score_weight=1.0, tie_weight=1.0)
