"""From rewards to advantages: placed on tokens, summed to returns, whitened or compared with others, filtered."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from algorithms.maths.masking import keep

RewardPlacement = Literal["eos", "last_column"]
"""Where the score of a rollout is paid."""


def place_terminal_reward(
    scores: Float[Tensor, " B"],
    kl: Float[Tensor, "B T"],
    action_mask: Bool[Tensor, "B T"],
    *,
    kl_coef: float,
    reward_clip: float | None,
    placement: RewardPlacement = "eos",
) -> Float[Tensor, "B T"]:
    """Rewards per token: −kl_coef · kl on every action, the clipped score added on the last one.

    A row without actions gets no reward at all (the release of R1-Reward puts it on the last column).

    Args:
        scores: Reward of each rollout.
        kl: Nats per token; nothing outside the mask reaches the rewards.
        kl_coef: Nonnegative; a negative one counts as 0, as in the released code.
        reward_clip: Scores are clamped to ±this; None leaves them.
        placement: ``last_column`` pays at slot T − 1 of every row, action or not, as LLaVA-RLHF does: for a return that
            counts padding too.
    Source: Ziegler et al. 2019, eq. 2, https://arxiv.org/abs/1909.08593; last_column: ppo_trainer.py:112-149
    """
    clipped = scores if reward_clip is None else scores.clamp(-reward_clip, reward_clip)
    rows, last = torch.arange(len(kl), device=kl.device), torch.full((len(kl),), kl.shape[1] - 1, device=kl.device)
    if placement == "eos":
        rows = rows[action_mask.any(dim=1)]
        last = last[rows] - action_mask[rows].flip(1).byte().argmax(dim=1)
    shaped = -max(kl_coef, 0.0) * kl
    shaped = shaped.masked_fill_(~action_mask, 0.0).add_(0.0)  # no -0
    shaped[rows, last] += clipped[rows].to(shaped)
    return shaped


def discounted_returns(
    rewards: Float[Tensor, "B T"], action_mask: Bool[Tensor, "B T"], *, gamma: float
) -> Float[Tensor, "B T"]:
    """Return-to-go over the policy's own tokens, zero outside the mask.

    Gₜ = rₜ + γ Gₙ where n is the next action position: other tokens are stepped over, not discounted through.

    Raises:
        ValueError: gamma outside [0, 1].
    """
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma = {gamma} is outside [0, 1]")
    kept = keep(rewards, action_mask)
    if gamma == 1.0 and kept.device.type == "cpu" and not kept.requires_grad:
        # The same additions in the same order, row by row in memory.
        backwards = kept.numpy()[:, ::-1]
        backwards.cumsum(axis=1, out=backwards)
        return kept.masked_fill_(~action_mask, 0.0)
    returns = torch.zeros_like(kept)
    running = kept.new_zeros(kept.shape[0])
    for t in range(kept.shape[1] - 1, -1, -1):
        running = torch.where(action_mask[:, t], kept[:, t] + gamma * running, running)
        returns[:, t] = running
    return keep(returns, action_mask)


GroupBaseline = Literal["grpo", "rloo", "mean"]
_MIN_VARIANCE = 1e-8
_STD_FLOOR = 1e-4
_BLOCK = 256
"""Rows."""


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
    chosen, end = torch.empty(int(mask.count_nonzero()), dtype=torch.float64), 0
    if chosen.numel() == 0:
        return Moments(0.0, 0.0)
    # Selected by numpy, which needs no index of every token, and by blocks of rows, which need no second copy.
    rows, kept = values.numpy(force=True), mask.numpy(force=True)
    for first in range(0, len(rows), _BLOCK):
        some = torch.from_numpy(rows[first : first + _BLOCK][kept[first : first + _BLOCK]])
        chosen[end : end + len(some)] = some
        end += len(some)
    mean = chosen.mean()
    if not bool(torch.isfinite(mean)):  # a sum of float32 is finite in float64
        row, slot = (mask & ~torch.isfinite(values)).nonzero()[0].tolist()
        raise ValueError(
            f"return of row {row}, token {slot} is {values[row, slot].item()}: it must be finite, or masked out"
        )
    return Moments(mean.item(), chosen.sub_(mean).square_().sum().item() / chosen.numel())


def whiten(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], moments: Moments) -> Float[Tensor, "B T"]:
    """Standardise by moments of the *whole* rollout: z = (G − μ) / √max(σ², 1e-8), zero outside the mask.

    Every token counts once, so long responses weigh more. The released code adds 1e-8 to z; here equal returns give
    exactly 0.

    Source: R1-Reward, Algorithm 1, https://arxiv.org/abs/2505.02835
    """
    scale = max(moments.variance, _MIN_VARIANCE) ** -0.5
    return (values - moments.mean).mul_(scale).masked_fill_(~mask, 0.0)


def group_advantages(
    scores: Float[Tensor, " B"], group_ids: Int[Tensor, " B"], *, baseline: GroupBaseline
) -> Float[Tensor, " B"]:
    """Advantage of each rollout among its siblings; 0 for one without any.

    grpo: (r − mean) / (std + 1e-4), std with Bessel correction; rloo: r − mean of the others; mean: r − mean of all.

    Source: Shao et al. 2024, https://arxiv.org/abs/2402.03300; Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740;
        Hu 2025, https://arxiv.org/abs/2501.03262, whose advantages are whitened over the batch afterwards
    """
    advantages = torch.zeros_like(scores)
    in_groups, sizes = torch.argsort(group_ids, stable=True), group_ids.unique(return_counts=True)[1]
    for members in in_groups.split(sizes.tolist()):
        count = len(members)
        if count < 2:
            continue
        rewards = scores[members]
        if rewards.max() == rewards.min():
            # Exactly 0: rounding of the mean over a tiny spread would be a signal.
            continue
        centred = rewards - rewards.mean()
        if baseline == "grpo":
            centred = centred / (rewards.std() + _STD_FLOOR)
        elif baseline == "rloo":
            centred = centred * count / (count - 1)
        advantages[members] = centred
    return advantages


def decoupled_advantages(
    parts: Float[Tensor, "B K"], weights: Float[Tensor, " K"], group_ids: Int[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Advantage of each rollout from the parts of its reward, each standardised among its siblings by itself.

    Aₖ = (rₖ − mean) / (std + 1e-4) in the group, A = Σₖ wₖ Aₖ, and that is standardised once more over the batch, so
    its size does not grow with the number of parts. Both std have Bessel's correction.

    Args:
        parts: Unweighted; NaN where a rollout lacks a part, which then neither counts nor is counted.
        weights: Of the parts.
    Source: Liu et al. 2026, GDPO, eq. 4 to 6, https://arxiv.org/abs/2601.05242
    """
    total = parts.new_zeros(len(parts))
    for part, weight in zip(parts.unbind(dim=1), weights, strict=True):
        known = ~part.isnan()
        total[known] += weight * group_advantages(part[known], group_ids[known], baseline="grpo")
    if len(total) < 2 or total.max() == total.min():
        return torch.zeros_like(total)
    return (total - total.mean()) / (total.std() + _STD_FLOOR)


def on_tokens(per_rollout: Float[Tensor, " B"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Every token of a rollout has the rollout's advantage; 0 outside the mask."""
    return keep(per_rollout.unsqueeze(1).expand(mask.shape), mask)


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
        return FilterResult(keep(z, mask), 0.0, 0.0)
    if rule == "sigma3":
        kept = (z >= -_SIGMAS) & (z <= _SIGMAS)
    else:
        low, high = max(raw_mean - _SIGMAS, -_RELEASED_BOUND), min(raw_mean + _SIGMAS, _RELEASED_BOUND)
        kept = (z >= low) & (z <= high)
    advantages = keep(z, mask & kept)
    dropped = mask & ~kept
    return FilterResult(
        advantages=advantages,
        filtered_pos_frac=_share(dropped, mask, z > 0),
        filtered_neg_frac=_share(dropped, mask, z < 0),
    )


def _share(part: Tensor, whole: Tensor, side: Tensor) -> float:
    total = int((whole & side).count_nonzero())
    return int((part & side).count_nonzero()) / total if total else 0.0
