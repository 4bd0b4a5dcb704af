"""Advantages from a critic's values: what a token was worth beyond what the critic expected of the state before it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.maths.masking import keep


def gae(
    rewards: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    action_mask: Bool[Tensor, "B T"],
    *,
    gamma: float,
    lam: float,
    reward_scale: float = 1.0,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Estimate advantages and returns over the policy's own tokens.

    δₜ = c rₜ + γ vₙ − vₜ and Aₜ = δₜ + γλ Aₙ, where n is the next *action* position: tool and image tokens are stepped
    over, not discounted through. After the last action v and A are 0. Returns are Aₜ + vₜ, what the critic learns.

    Args:
        rewards: Reward units per position; nothing outside the mask counts.
        values: vₜ, reward units times c: of the state in which the token at slot t was sampled, before it.
        gamma: Discount per action token, in [0, 1].
        lam: 0 gives the TD error, 1 gives return minus value.
        reward_scale: c; the released code of LLaVA-RLHF multiplies by 10 where it does not whiten rewards.
    Returns:
        ``(advantages, returns)``, both zero outside the mask; detached.
    Raises:
        ValueError: gamma or lam outside [0, 1], or the scale not finite and positive.
    Source: Schulman et al. 2016, eq. 16, https://arxiv.org/abs/1506.02438
    """
    for name, value in (("gamma", gamma), ("lam", lam)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} = {value} is outside [0, 1]")
    if not 0.0 < reward_scale < float("inf"):
        raise ValueError(f"reward_scale = {reward_scale} must be positive and finite")
    rewards, values = keep(reward_scale * rewards.detach(), action_mask), keep(values.detach(), action_mask)
    advantages = torch.zeros_like(values)
    next_value = next_advantage = values.new_zeros(len(values))
    for t in range(values.shape[1] - 1, -1, -1):
        acts = action_mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(acts, delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(acts, values[:, t], next_value)
        advantages[:, t] = next_advantage
    advantages = keep(advantages, action_mask)
    return advantages, advantages + values
