"""PPO's estimate as LLaVA-RLHF's release makes it, over columns of a fixed number: padding counts like any token."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.maths.advantages import place_terminal_reward
from algorithms.maths.gae import gae
from algorithms.maths.whitening import whiten_groups


@dataclass(frozen=True, slots=True)
class ReleasedEstimate:
    """All ``[B, T]``."""

    rewards: Tensor
    """Before they are scaled."""
    advantages: Tensor
    returns: Tensor
    raw_mean: float
    """Of the advantages before they were whitened."""


def released_columns(
    scores: Float[Tensor, " B"],
    kl: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    *,
    kl_coef: float,
    reward_clip: float | None,
    gamma: float,
    lam: float,
    reward_scale: float,
    least_rows: int | None,
) -> ReleasedEstimate:
    """Score in the last column, GAE over all columns, whitening over all of them.

    Args:
        kl: Nats per token, 0 in padding.
        values: Of every column, padding too.
        reward_scale: What rewards are multiplied by, 10 there.
        least_rows: That are whitened together, 8 there; None leaves advantages as they are.
    Raises:
        ValueError: fewer rows to whiten, or a number that is not finite.
    Source: LLaVA-RLHF, ppo_trainer.py:112-178
    """
    every = torch.ones_like(values, dtype=torch.bool)
    rewards = place_terminal_reward(
        scores, kl, every, kl_coef=kl_coef, reward_clip=reward_clip, placement="last_column"
    )
    plain, returns = gae(rewards, values, every, gamma=gamma, lam=lam, reward_scale=reward_scale)
    advantages = plain if least_rows is None else whiten_groups(plain, every, min_rows=least_rows)
    return ReleasedEstimate(rewards, advantages, returns, plain.double().mean().item())
