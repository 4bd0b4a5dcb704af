"""Numbers at the edge: a whole response's ratio that overflows, and an advantage that is none."""

import math

import pytest
import torch

from algorithms.algorithm import Unlearnable
from algorithms.maths.policy_losses import ppo_clip_loss_map
from algorithms.rloo import Rloo
from tests.unit.algorithms.test_policy_gradients import _learned, _made, _rollout


@pytest.mark.parametrize("advantage", [1.0, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ratio_that_overflows_spoils_no_neighbour(advantage: float, dtype: torch.dtype) -> None:
    log_ratio = torch.tensor([[1000.0, 0.1]], dtype=dtype, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    result = ppo_clip_loss_map(
        log_ratio, torch.full((1, 2), advantage, dtype=dtype), mask,
        clip_low=0.2, clip_high=0.2, preclip_min=None, preclip_max=None, dual_clip=None,
    )  # fmt: skip
    result.loss.sum().backward()
    assert log_ratio.grad is not None
    assert bool(torch.isfinite(result.loss).all()) and bool(torch.isfinite(log_ratio.grad).all())
    assert log_ratio.grad[0, 0] == 0.0
    assert log_ratio.grad[0, 1].item() == pytest.approx(-advantage * math.exp(0.1))


def test_an_advantage_that_is_not_finite_stops_the_run() -> None:
    rollouts = (_rollout("a", 0, 1.0, kl=math.nan), _rollout("a", 1, 0.0, kl=0.1))
    with pytest.raises(Unlearnable, match="not finite"):
        _learned(_made(Rloo, kl_coef=0.1), *rollouts)
