"""Advantages from returns: whitening over the whole rollout, or a comparison within a group of siblings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from algorithms.maths.masking import keep

_MIN_VARIANCE = 1e-8


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and summed squared deviation of a set of tokens; shards add up exactly as the whole would."""

    count: float
    mean: float
    squared_deviation: float

    @property
    def variance(self) -> float:
        """Population variance (no Bessel correction); 0 for an empty set."""
        return self.squared_deviation / self.count if self.count else 0.0


def token_moments(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Moments:
    """Moments over the masked tokens of one shard, in float64.

    Raises:
        ValueError: a counted value is not finite. The released code turns one such value into a rollout of zeros.
    """
    chosen = values[mask].double()
    if chosen.numel() == 0:
        return Moments(0.0, 0.0, 0.0)
    finite = torch.isfinite(values) | ~mask
    if not bool(finite.all()):
        row, slot = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"return of row {row}, token {slot} is {values[row, slot].item()}: it must be finite, or masked out"
        )
    mean = chosen.mean()
    return Moments(float(chosen.numel()), mean.item(), (chosen - mean).square().sum().item())


def combine_moments(shards: Sequence[Moments]) -> Moments:
    """Moments of the union of shards.

    Source: Chan et al. 1979, the parallel variance formula.
    """
    count = sum(s.count for s in shards)
    if count == 0:
        return Moments(0.0, 0.0, 0.0)
    mean = sum(s.count * s.mean for s in shards) / count
    deviation = sum(s.squared_deviation + s.count * (s.mean - mean) ** 2 for s in shards)
    return Moments(count, mean, deviation)


def whiten(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], moments: Moments) -> Float[Tensor, "B T"]:
    """Standardise by moments of the *whole* rollout: z = (G − μ) / √max(σ², 1e-8), zero outside the mask.

    Moments of shards combine to those of the whole, so the number of ranks cannot change z. Every token counts
    once, so long responses weigh more. The released code adds 1e-8 to z; here equal returns give exactly 0.

    Source: R1-Reward, Algorithm 1, https://arxiv.org/abs/2505.02835
    """
    scale = max(moments.variance, _MIN_VARIANCE) ** -0.5
    return keep((values - moments.mean) * scale, mask)


def group_advantages(
    scores: Float[Tensor, " B"],
    group_ids: Int[Tensor, " B"],
    valid: Bool[Tensor, " B"],
    *,
    baseline: Literal["grpo", "rloo"],
) -> Float[Tensor, " B"]:
    """Advantage of each rollout among its siblings; 0 for invalid rollouts and for groups with one valid member.

    grpo: (r − mean) / (std + 1e-4), std with Bessel correction; rloo: r − mean of the others.

    Source: Shao et al. 2024, https://arxiv.org/abs/2402.03300; Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740
    """
    advantages = torch.zeros_like(scores)
    for group in group_ids.unique():
        members = (group_ids == group) & valid
        count = int(members.sum())
        if count < 2:
            continue
        rewards = scores[members]
        centred = rewards - rewards.mean()
        advantages[members] = centred / (rewards.std() + 1e-4) if baseline == "grpo" else centred * count / (count - 1)
    return advantages
