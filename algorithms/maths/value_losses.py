"""The critic's loss as a per-token map, and how much of the returns it explains; ``aggregation`` makes the scalar."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.maths.masking import keep


@dataclass(frozen=True, slots=True)
class ValueLoss:
    """A loss map and where its bound acted."""

    loss: Tensor
    """``[B, T]``, zero outside the mask; squared reward units."""
    clip_hit: Tensor
    """bool ``[B, T]``: the clipped value was the worse one; beyond the bound such a token has no gradient."""


def clipped_value_loss_map(
    values: Float[Tensor, "B T"],
    old_values: Float[Tensor, "B T"],
    returns: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip: float | None,
) -> ValueLoss:
    """½ max((v − R)², (v̂ − R)²) with v̂ = v clamped to v_old ± clip: a step towards R pays only so far.

    Args:
        values: Of the current weights, with gradient.
        old_values: Of the weights that R was estimated with.
        returns: R, from ``gae``.
        clip: Reward units, in those of R: the critic moves about this far in a step. None leaves it unbounded.
    Raises:
        ValueError: a negative bound.
    Source: Schulman et al. 2016 have no bound; it is that of OpenAI baselines' PPO2, as LLaVA-RLHF,
        ppo_trainer.py:691-762
    """
    if clip is not None and not clip >= 0.0:
        raise ValueError(f"clip = {clip} must not be negative")
    values, returns = keep(values, mask), keep(returns.detach(), mask)
    plain = (values - returns).square()
    if clip is None:
        return ValueLoss(loss=0.5 * plain, clip_hit=torch.zeros_like(mask))
    old = keep(old_values.detach(), mask)
    bounded = (values.clamp(old - clip, old + clip) - returns).square()
    return ValueLoss(loss=0.5 * torch.maximum(plain, bounded), clip_hit=(bounded > plain) & mask)


def explained_variance(
    values: Float[Tensor, "B T"], returns: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> float | None:
    """1 − Var(R − v) / Var(R) over the masked tokens: 1 is a perfect critic, 0 one that says the same everywhere.

    Negative where it would be better to say nothing. None where the returns do not vary, or there are none.
    """
    chosen, gaps = returns[mask].double(), (returns - values)[mask].double()
    if chosen.numel() == 0 or bool(chosen.max() == chosen.min()):
        return None
    return 1.0 - (gaps.var(correction=0) / chosen.var(correction=0)).item()
