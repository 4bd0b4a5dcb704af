"""From one reward per rollout to a return per token."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.maths.masking import keep


def place_terminal_reward(
    scores: Float[Tensor, " B"],
    kl: Float[Tensor, "B T"],
    action_mask: Bool[Tensor, "B T"],
    *,
    kl_coef: float,
    reward_clip: float | None,
) -> Float[Tensor, "B T"]:
    """Rewards per token: −kl_coef · kl on every action, the clipped score added on the last one.

    A row without actions gets no reward at all (the released code puts it on the last column).

    Args:
        scores: Reward of each rollout.
        kl: Nats per token; nothing outside the mask reaches the rewards.
        kl_coef: Nonnegative; a negative one counts as 0, as in the released code.
        reward_clip: Scores are clamped to ±this; None leaves them.
    Source: Ziegler et al. 2019, eq. 2, https://arxiv.org/abs/1909.08593
    """
    clipped = scores if reward_clip is None else scores.clamp(-reward_clip, reward_clip)
    positions = torch.arange(action_mask.shape[1], device=action_mask.device)
    last = torch.where(action_mask, positions, -1).amax(dim=1, keepdim=True)
    is_last = (positions == last) & action_mask
    shaped = keep(-max(kl_coef, 0.0) * kl, action_mask)
    return shaped + torch.where(is_last, clipped.unsqueeze(1).to(shaped), torch.zeros_like(shaped))


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
    returns = torch.zeros_like(kept)
    running = kept.new_zeros(kept.shape[0])
    for t in range(kept.shape[1] - 1, -1, -1):
        running = torch.where(action_mask[:, t], kept[:, t] + gamma * running, running)
        returns[:, t] = running
    return keep(returns, action_mask)
