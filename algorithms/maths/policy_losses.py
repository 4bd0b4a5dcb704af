"""Per-token policy losses. Each returns a map; ``aggregation`` makes the scalar."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.maths.masking import keep, sequence_sums

_LARGEST_EXPONENT = 80.0


_LARGEST_SHARE = 0.9
"""Of the largest exponent that a number format holds."""


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """A loss map and where its two guards acted."""

    loss: Tensor
    """``[B, T]``, zero outside the mask."""
    preclip_hit: Tensor
    """bool ``[B, T]``: the log-ratio was outside the Pre-CLIP bounds; such a token has no gradient."""
    clip_hit: Tensor
    """bool ``[B, T]``: a bound on the ratio was the active term of the loss."""
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


def sequence_log_ratio(
    logprobs: Float[Tensor, "1 N"],
    old_logprobs: Float[Tensor, "1 N"],
    mask: Bool[Tensor, "1 N"],
    lengths: Sequence[int],
    *,
    length_normalised: bool,
) -> Float[Tensor, "1 N"]:
    """At every token the log-ratio of its whole sequence, with the gradient of the token's own log-prob.

    log s + log π − sg[log π], where log s is the mean of log π − log π_old over the sequence's tokens (GSPO), or their
    sum, which is the ratio of the whole response as one action. Where all tokens of a sequence weigh alike, the
    gradient is that of s itself: sg keeps every token's share apart, so that a token without weight learns nothing.

    Args:
        logprobs: Sequences one behind the other.
        lengths: Of the sequences.
    Source: Zheng et al. 2025, GSPO, eq. 7, and eq. 14 for the gradient, https://arxiv.org/abs/2507.18071
    """
    total = sequence_sums(keep(logprobs - old_logprobs, mask).detach(), lengths)
    if length_normalised:
        total = total / sequence_sums(mask.to(total), lengths).clamp(min=1)
    return keep(total + (logprobs - logprobs.detach()), mask)


def ppo_clip_loss_map(
    log_ratio: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip_low: float,
    clip_high: float,
    preclip_min: float | None = None,
    preclip_max: float | None = None,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """PPO's pessimistic clipped loss, optionally behind Pre-CLIP.

    −min(ρ Â, clamp(ρ, 1 − clip_low, 1 + clip_high) Â) with ρ = exp(d), d = log π − log π_old. Without Pre-CLIP
    (either bound None) this is REINFORCE++'s loss. With dual clip c it is at most c |Â| where Â < 0.

    Args:
        log_ratio: d, of tokens or of whole sequences.
        mask: Tokens the loss counts; nothing outside it reaches value or gradient.
        dual_clip: c, above 1; None leaves the loss of negative advantages unbounded.
    Raises:
        ValueError: c not above 1.
    Source: Schulman et al. 2017, eq. 7, https://arxiv.org/abs/1707.06347; c: Ye et al. 2020, eq. 5,
        https://arxiv.org/abs/1912.09729
    """
    log_ratio, kept = keep(log_ratio, mask), keep(advantages, mask)
    hit, dual_hit = torch.zeros_like(mask), torch.zeros_like(mask)
    if preclip_min is not None and preclip_max is not None:
        log_ratio, hit = pre_clip(log_ratio, ratio_min=preclip_min, ratio_max=preclip_max)
    if dual_clip is not None:
        if dual_clip <= 1.0:
            raise ValueError(f"dual_clip = {dual_clip} must be above 1")
        # Before exp, so that a ratio that would overflow has gradient 0 and not NaN.
        dual_hit = (kept < 0) & (log_ratio > math.log(dual_clip))
        log_ratio = torch.where(kept < 0, log_ratio.clamp(max=math.log(dual_clip)), log_ratio)
    # The ratio of a whole response may overflow, and 0 times that is no number. Where the advantage is not negative
    # there is no gradient long before; a negative one is unbounded, which only dual clip or Pre-CLIP change.
    bound = _LARGEST_SHARE * math.log(torch.finfo(log_ratio.dtype).max)
    ratio = torch.where(kept < 0, log_ratio, log_ratio.clamp(max=bound)).exp()
    plain = ratio * kept
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * kept
    return PolicyLoss(
        loss=keep(-torch.minimum(plain, clipped), mask),
        preclip_hit=hit & mask,
        clip_hit=((clipped < plain) | dual_hit) & mask,
        ratio=ratio.detach(),
    )


def cispo_loss_map(
    log_ratio: Float[Tensor, "B T"],
    logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """REINFORCE under a clipped importance weight: −sg[clamp(ρ, 1 − clip_low, 1 + clip_high)] Â log π.

    No token loses its gradient; one whose ratio left the bounds only weighs no more than they say.

    Source: MiniMax 2025, MiniMax-M1, eq. 4 and 5, https://arxiv.org/abs/2506.13585
    """
    ratio = keep(log_ratio, mask).detach().exp()
    weight = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return PolicyLoss(
        loss=-weight * keep(advantages, mask) * keep(logprobs, mask),
        preclip_hit=torch.zeros_like(mask),
        clip_hit=(weight != ratio) & mask,
        ratio=ratio,
    )


def sapo_loss_map(
    log_ratio: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    tau_pos: float,
    tau_neg: float,
) -> PolicyLoss:
    """A soft gate in place of the clip: −(4 / τ) σ(τ (ρ − 1)) Â, with τ_pos where Â > 0 and τ_neg elsewhere.

    Its gradient is 4 σ (1 − σ) ρ Â ∇log π: that of REINFORCE at ρ = 1, and less the further ρ is from 1.

    Raises:
        ValueError: a temperature that is not positive.
    Source: Gao et al. 2025, SAPO, eq. 5 and 6, https://arxiv.org/abs/2511.20347
    """
    if not (tau_pos > 0 and tau_neg > 0):
        raise ValueError(f"tau_pos = {tau_pos} and tau_neg = {tau_neg} must be above 0")
    kept = keep(advantages, mask)
    # The gate is flat long before this bound; beyond it exp overflows in float32, and 0 times infinity is NaN.
    ratio = keep(log_ratio, mask).clamp(max=_LARGEST_EXPONENT).exp()
    tau = torch.where(kept > 0, tau_pos, tau_neg).to(ratio)
    gate = (tau * (ratio - 1.0)).sigmoid() * (4.0 / tau)
    return PolicyLoss(
        loss=keep(-gate * kept, mask),
        preclip_hit=torch.zeros_like(mask),
        clip_hit=torch.zeros_like(mask),
        ratio=ratio.detach(),
    )


def sft_loss_map(logprobs: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Negative log-likelihood of the demonstration's tokens."""
    return keep(-logprobs, mask)
