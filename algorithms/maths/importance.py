"""Between the engine that sampled and the trainer that learns: importance weights, and sequences too far apart."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.maths.masking import keep, sequence_sums

CorrectionMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


def correction_weights(
    old_logprobs: Float[Tensor, "1 N"],
    rollout_logprobs: Float[Tensor, "1 N"],
    mask: Bool[Tensor, "1 N"],
    lengths: Sequence[int],
    *,
    mode: CorrectionMode,
    minimum: float | None,
    maximum: float,
) -> Float[Tensor, "1 N"]:
    """π_trainer / π_engine of every token or, at each of its tokens, of the whole sequence; bounded, and detached.

    ``truncate`` moves a ratio to the nearer bound, ``mask`` makes it 0 where it is outside them. It is 0 outside the
    mask, and at a token whose engine log-prob is not finite; such a token is no part of its sequence's ratio.

    Args:
        old_logprobs: Sequences one behind the other, nats.
        lengths: Of the sequences.
        minimum: Lower bound; None is 0.
    Raises:
        ValueError: bounds not 0 ≤ minimum ≤ maximum with maximum above 0.
    Source: token_truncate: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training";
        token_mask: Ling team 2025, IcePop, https://arxiv.org/abs/2510.18855; sequence_mask: Liu et al. 2025, "When
        speed kills stability" (masked importance sampling)
    """
    least = 0.0 if minimum is None else minimum
    if not (0.0 <= least <= maximum and maximum > 0.0):
        raise ValueError(f"bounds ({minimum}, {maximum}) must satisfy 0 <= minimum <= maximum, and maximum be above 0")
    usable = mask & torch.isfinite(rollout_logprobs)
    gap = keep(old_logprobs, usable).detach() - keep(rollout_logprobs, usable)
    if mode.startswith("sequence"):
        gap = sequence_sums(gap, lengths)
    ratio = gap.exp()
    if mode.endswith("truncate"):
        return keep(ratio.clamp(least, maximum), usable)
    return keep(ratio, usable & (ratio >= least) & (ratio <= maximum))


def on_policy_mask(
    advantages: Float[Tensor, "1 N"],
    logprobs: Float[Tensor, "1 N"],
    rollout_logprobs: Float[Tensor, "1 N"],
    mask: Bool[Tensor, "1 N"],
    lengths: Sequence[int],
    *,
    max_kl: float,
) -> Bool[Tensor, "1 N"]:
    """False at tokens of negative advantage in sequences that the policy has moved too far away from.

    That is where the mean of log π_engine − log π over the sequence's tokens is above ``max_kl``. What is unlikely by
    now is still learned from if it was good.

    Args:
        logprobs: Of the current weights, sequences one behind the other; read without gradient.
        lengths: Of the sequences.
        max_kl: Nats a token.
    Source: DeepSeek-AI 2025, DeepSeek-V3.2, eq. 9, https://arxiv.org/abs/2512.02556
    """
    usable = mask & torch.isfinite(rollout_logprobs)
    gap = keep(rollout_logprobs, usable) - keep(logprobs, usable).detach()
    mean = sequence_sums(gap, lengths) / sequence_sums(usable.to(gap), lengths).clamp(min=1)
    return (advantages >= 0) | (mean <= max_kl)
