"""The gap between the engine that sampled and the trainer that learns: measured, and corrected when asked."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.maths.masking import keep


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Absolute difference of log-probs between trainer and engine, nats."""

    abs_mean: float
    abs_max: float
    num_nonfinite: int
    """Tokens whose engine log-prob was not finite: left out of both numbers, and dropped by the weights."""


def truncated_is_weights(
    old_logprobs: Float[Tensor, "B T"],
    rollout_logprobs: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    cap: float,
) -> Float[Tensor, "B T"]:
    """min(π_trainer / π_engine, cap) per token, detached; 0 outside the mask and where the engine's is not finite.

    Raises:
        ValueError: cap not above 0.
    Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"
    """
    if cap <= 0:
        raise ValueError(f"cap = {cap} must be above 0")
    usable = mask & torch.isfinite(rollout_logprobs)
    gap = keep(old_logprobs, usable) - keep(rollout_logprobs, usable)
    return keep(gap.exp().clamp(max=cap), usable).detach()


def logprob_mismatch(
    old_logprobs: Float[Tensor, "B T"], rollout_logprobs: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Mismatch:
    """Mean and largest absolute gap over the masked tokens the engine scored; 0 where there is none."""
    usable = mask & torch.isfinite(rollout_logprobs)
    num_nonfinite = int(mask.sum() - usable.sum())
    if not bool(usable.any()):
        return Mismatch(0.0, 0.0, num_nonfinite)
    gap = (old_logprobs - rollout_logprobs)[usable].abs()
    return Mismatch(gap.mean().item(), gap.max().item(), num_nonfinite)
