"""Advantages from returns: whitening over the whole rollout, or a comparison within a group of siblings."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from algorithms.maths.masking import keep

GroupBaseline = Literal["grpo", "rloo", "mean"]
_MIN_VARIANCE = 1e-8


@dataclass(frozen=True, slots=True)
class Moments:
    """Of a set of tokens; zeros of an empty one."""

    mean: float
    variance: float
    """Of the population: no Bessel correction."""


def token_moments(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Moments:
    """Moments over the masked tokens of a whole rollout, in float64.

    Raises:
        ValueError: a counted value is not finite. The released code turns one such value into a rollout of zeros.
    """
    chosen = values[mask].double()
    if chosen.numel() == 0:
        return Moments(0.0, 0.0)
    finite = torch.isfinite(values) | ~mask
    if not bool(finite.all()):
        row, slot = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"return of row {row}, token {slot} is {values[row, slot].item()}: it must be finite, or masked out"
        )
    mean = chosen.mean()
    return Moments(mean.item(), (chosen - mean).square().sum().item() / chosen.numel())


def whiten(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], moments: Moments) -> Float[Tensor, "B T"]:
    """Standardise by moments of the *whole* rollout: z = (G − μ) / √max(σ², 1e-8), zero outside the mask.

    Every token counts once, so long responses weigh more. The released code adds 1e-8 to z; here equal returns give
    exactly 0.

    Source: R1-Reward, Algorithm 1, https://arxiv.org/abs/2505.02835
    """
    scale = max(moments.variance, _MIN_VARIANCE) ** -0.5
    return keep((values - moments.mean) * scale, mask)


def group_advantages(
    scores: Float[Tensor, " B"], group_ids: Int[Tensor, " B"], *, baseline: GroupBaseline
) -> Float[Tensor, " B"]:
    """Advantage of each rollout among its siblings; 0 for one without any.

    grpo: (r − mean) / (std + 1e-4), std with Bessel correction; rloo: r − mean of the others; mean: r − mean of all.

    Source: Shao et al. 2024, https://arxiv.org/abs/2402.03300; Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740;
        Hu 2025, https://arxiv.org/abs/2501.03262, whose advantages are whitened over the batch afterwards
    """
    advantages = torch.zeros_like(scores)
    for group in group_ids.unique():
        members = group_ids == group
        count = int(members.sum())
        if count < 2:
            continue
        rewards = scores[members]
        centred = rewards - rewards.mean()
        if baseline == "grpo":
            centred = centred / (rewards.std() + 1e-4)
        elif baseline == "rloo":
            centred = centred * count / (count - 1)
        advantages[members] = centred
    return advantages
