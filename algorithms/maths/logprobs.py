"""Log-probs of tokens, and how far two policies' are apart: KL estimates, engine against trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from algorithms.maths.masking import keep


class TokenScores(NamedTuple):
    """What a model thinks of ``N`` tokens. Only the log-probs carry gradient; the rest are figures for people."""

    logprobs: Tensor
    """float32 ``[N]``, nats."""
    entropy: Tensor
    """float32 ``[N]``, nats."""
    greedy: Tensor
    """bool ``[N]``: the token is the likeliest."""


def token_logprobs(
    logits: Float[Tensor, "N V"],
    ids: Int[Tensor, " N"],
    *,
    temperature: float = 1.0,
    banned_ids: Sequence[int] = (),
) -> TokenScores:
    """Score ``ids`` under softmax(logits / temperature) over all ids but the banned, computed in at least float32.

    Args:
        temperature: Above 0.
        banned_ids: Have no probability: each of the others has more by as much as they would have had together.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    if temperature != 1.0:
        wide = wide / temperature
    if banned_ids:
        wide = wide.index_fill(-1, torch.tensor(list(banned_ids), device=wide.device), float("-inf"))
    log_all = wide.log_softmax(dim=-1)
    chosen = log_all.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy = torch.special.entr(log_all.exp()).sum(dim=-1)
        greedy = wide.argmax(dim=-1) == ids
    return TokenScores(chosen, entropy, greedy)


KlEstimator = Literal["k1", "k1_clamped", "k2", "k3"]


def kl_estimate(
    logprobs: Float[Tensor, "B T"],
    ref_logprobs: Float[Tensor, "B T"],
    action_mask: Bool[Tensor, "B T"],
    *,
    estimator: KlEstimator,
) -> Float[Tensor, "B T"]:
    """Per-token KL estimate, zero outside the mask.

    With d = log π − log π_ref: k1 = d (unbiased, signed), k2 = d²/2 (biased, low variance),
    k3 = e⁻ᵈ − 1 + d (unbiased, never negative). k1_clamped = max(d, 0) charges only the tokens that the policy likes
    more than the reference does, and so is biased upwards.

    Source: Schulman, http://joschu.net/blog/kl-approx.html; k1_clamped: LLaVA-RLHF, ppo_trainer.py:112-149
    """
    difference = keep(logprobs - ref_logprobs, action_mask)
    if estimator == "k1":
        return difference
    if estimator == "k1_clamped":
        return difference.clamp(min=0.0)
    if estimator == "k2":
        return 0.5 * difference.square()
    # expm1 keeps the sign right where the two policies nearly agree.
    return (-difference).expm1() + difference


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Absolute difference of log-probs between trainer and engine, nats."""

    abs_mean: float
    abs_max: float
    num_nonfinite: int
    """Tokens whose engine log-prob was not finite: left out of both numbers, and dropped by the weights."""


def logprob_mismatch(
    old_logprobs: Float[Tensor, "B T"], rollout_logprobs: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Mismatch:
    """Mean and largest absolute gap over the masked tokens the engine scored; 0 where there is none."""
    usable = mask & torch.isfinite(rollout_logprobs)
    gap = (old_logprobs - rollout_logprobs).flatten()
    return mismatch_of_gaps(gap, usable.flatten(), num_nonfinite=int(mask.sum() - usable.sum()))


def mismatch_of_gaps(gap: Float[Tensor, " N"], usable: Bool[Tensor, " N"], *, num_nonfinite: int) -> Mismatch:
    """The same of gaps that are known.

    Args:
        gap: Trainer's log-prob less the engine's, of any sign; overwritten.
        usable: Tokens that count.
        num_nonfinite: Further ones, which the engine did not score.
    """
    if not bool(usable.any()):
        return Mismatch(0.0, 0.0, num_nonfinite)
    gap = (gap if bool(usable.all()) else gap[usable]).abs_()
    return Mismatch(gap.mean().item(), gap.max().item(), num_nonfinite)
