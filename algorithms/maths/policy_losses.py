"""Per-token policy losses. Each returns a map; ``aggregation`` makes the scalar."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.maths.masking import keep


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """A loss map and where its two guards acted."""

    loss: Tensor
    """``[B, T]``, zero outside the mask."""
    preclip_hit: Tensor
    """bool ``[B, T]``: the log-ratio was outside the Pre-CLIP bounds; such a token has no gradient."""
    clip_hit: Tensor
    """bool ``[B, T]``: the clipped term of PPO was the active one."""
    ratio: Tensor
    """``[B, T]``, detached: π / π_old as the loss used it, so after Pre-CLIP; 1 outside the mask."""


def pre_clip(
    log_ratio: Float[Tensor, "B T"], *, ratio_min: float, ratio_max: float
) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Clamp the log-ratio to [ln ratio_min, ln ratio_max] *before* it is exponentiated; also say where it acted.

    Outside the bounds the gradient is zero, for either sign of the advantage: a token mask for extreme drift.

    Raises:
        ValueError: bounds not 0 < ratio_min ≤ 1 ≤ ratio_max.
    Source: R1-Reward Algorithm 1, https://arxiv.org/abs/2505.02835
    """
    if not 0.0 < ratio_min <= 1.0 <= ratio_max:
        raise ValueError(f"pre-clip bounds ({ratio_min}, {ratio_max}) must satisfy 0 < min <= 1 <= max")
    low, high = math.log(ratio_min), math.log(ratio_max)
    return log_ratio.clamp(low, high), (log_ratio < low) | (log_ratio > high)


def ppo_clip_loss_map(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip_low: float,
    clip_high: float,
    preclip_min: float | None,
    preclip_max: float | None,
) -> PolicyLoss:
    """PPO's pessimistic clipped loss, optionally behind Pre-CLIP.

    −min(ρ Â, clamp(ρ, 1 − clip_low, 1 + clip_high) Â) with ρ = exp(d), d = log π − log π_old. Without Pre-CLIP
    (either bound None) this is REINFORCE++'s loss.

    Args:
        mask: Tokens the loss counts; nothing outside it reaches value or gradient.
    Source: Schulman et al. 2017, eq. 7, https://arxiv.org/abs/1707.06347
    """
    log_ratio = keep(logprobs - old_logprobs, mask)
    hit = torch.zeros_like(mask)
    if preclip_min is not None and preclip_max is not None:
        log_ratio, hit = pre_clip(log_ratio, ratio_min=preclip_min, ratio_max=preclip_max)
    ratio = log_ratio.exp()
    kept = keep(advantages, mask)
    plain = ratio * kept
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * kept
    return PolicyLoss(
        loss=keep(-torch.minimum(plain, clipped), mask),
        preclip_hit=hit & mask,
        clip_hit=(clipped < plain) & mask,
        ratio=ratio.detach(),
    )


def sft_loss_map(logprobs: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Negative log-likelihood of the demonstration's tokens."""
    return keep(-logprobs, mask)
