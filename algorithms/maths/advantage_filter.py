"""The advantage filter of StableReinforce: extreme standardised advantages are set to zero."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

AdvantageFilter = Literal["none", "sigma3", "r1_released"]
_SIGMAS = 3.0
_RELEASED_BOUND = 10.0


@dataclass(frozen=True, slots=True)
class FilterResult:
    """Filtered advantages and how much was lost on each side."""

    advantages: Tensor
    """``[B, T]``, zero where filtered; the tokens stay in the loss denominator."""
    filtered_pos_frac: float
    """Share of the positive tokens that were zeroed."""
    filtered_neg_frac: float
    """Share of the negative tokens that were zeroed."""


def filter_advantages(
    z: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], *, rule: AdvantageFilter, raw_mean: float
) -> FilterResult:
    """Zero advantages outside the rule's window.

    ``sigma3`` keeps |z| ≤ 3 (the paper). ``r1_released`` keeps μ−3 ≤ z ≤ μ+3 with μ the mean return *before*
    standardising, and |z| ≤ 10: with rewards in [0, 2] it drops negative advantages long before positive ones.

    Args:
        z: Standardised advantages.
        raw_mean: Mean return before standardising; read by ``r1_released`` only.
    Source: R1-Reward, "Advantage Filter", https://arxiv.org/abs/2505.02835;
        its release yfzhang114/r1_reward, replay_buffer.py:265-275
    """
    if rule == "none":
        kept = torch.ones_like(mask)
    elif rule == "sigma3":
        kept = z.abs() <= _SIGMAS
    else:
        low, high = raw_mean - _SIGMAS, raw_mean + _SIGMAS
        kept = (z >= low) & (z <= high) & torch.isfinite(z) & (z.abs() <= _RELEASED_BOUND)
    dropped = mask & ~kept
    return FilterResult(
        advantages=torch.where(mask & kept, z, torch.zeros_like(z)),
        filtered_pos_frac=_share(dropped & (z > 0), mask & (z > 0)),
        filtered_neg_frac=_share(dropped & (z < 0), mask & (z < 0)),
    )


def _share(part: Tensor, whole: Tensor) -> float:
    total = int(whole.sum())
    return int(part.sum()) / total if total else 0.0
