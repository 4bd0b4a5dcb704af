"""β of each pair in MM-DPO: how far the policy may move for it, by how much a frozen reward model sets it apart.

    margin               β (1 + w (1 − exp(−k max(δ, 0)))), δ the chosen less the rejected reward; the paper's
    precomputed factor   β (1 + w f), with f = 1 − exp(−k δ) worked out elsewhere
    batch implicit       β (1 + w (S − A)), one number a batch, from the policy's own log-ratios; what was released

Every β is float64 and without gradient, as ``preference_losses.dpo_loss`` takes it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

NegativeMargin = Literal["clamp", "drop", "flag"]
"""What to do with a pair whose rejected response has the greater reward. Each way its margin counts as 0 for β.

``clamp`` learns from it and only counts it; ``flag`` does the same and names it; ``drop`` leaves it out.
"""

MIN_BETA = 1e-3
"""1/nats: the released code lets no β sink below this."""
_NO_SPREAD = 1e-7
"""Nats, added to the standard deviation as in the released code."""


@dataclass(frozen=True, slots=True)
class MarginBetas:
    """β of every pair and what was made of the pairs on which reward model and annotator disagree."""

    betas: Tensor
    """float64 ``[P]``, 1/nats, in [β, β (1 + w)]."""
    keep: Tensor
    """bool ``[P]``: the pair is learned from; all True unless negative margins are dropped."""
    num_negative: int
    """Pairs with a negative margin, whatever becomes of them."""
    flagged: tuple[int, ...]
    """Their positions, ascending, where negative margins are to be flagged; otherwise empty."""


def margin_betas(
    margins: Float[Tensor, " P"], *, beta: float, weight: float, steepness: float, negative: NegativeMargin
) -> MarginBetas:
    """β (1 + w (1 − exp(−k max(δ, 0)))) of each pair: β where δ ≤ 0, towards β (1 + w) as δ grows.

    The formula of the paper has no max, so below 0 it leaves the bounds the paper states, and falls exponentially.

    Args:
        margins: δ, reward units: chosen less rejected reward of a frozen model; ∞ gives β (1 + w).
        beta: β, 1/nats, positive.
        weight: w, not negative; 0.5 in the paper.
        steepness: k, per reward unit, positive; 0.5 in the paper.
    Raises:
        ValueError: a margin that is NaN, named by its position, or a number outside its bounds.
    Source: MM-RLHF, section 4.2, https://arxiv.org/abs/2502.10391
    """
    _check_numbers(beta, weight)
    if not 0.0 < steepness < math.inf:
        raise ValueError(f"steepness = {steepness} must be positive and finite")
    delta = margins.detach().double()
    _refuse_any(delta.isnan(), delta, "margins", "must be a number, positive or negative")
    below = delta < 0
    return MarginBetas(
        betas=beta * (1.0 + weight * (1.0 - (-steepness * delta.clamp(min=0)).exp())),
        keep=~below if negative == "drop" else torch.ones_like(below),
        num_negative=int(below.sum()),
        flagged=tuple(below.nonzero().flatten().tolist()) if negative == "flag" else (),
    )


def factor_betas(factors: Float[Tensor, " P"], *, beta: float, weight: float) -> Float[Tensor, " P"]:
    """max(β (1 + w f), ``MIN_BETA``): the released code's use of factors that came with the data.

    Args:
        factors: f, which its data should hold as 1 − exp(−k δ); nothing is made of a negative one but what the
            formula says.
        beta: β, 1/nats, positive.
        weight: w, not negative.
    Raises:
        ValueError: a factor that is not finite, named by its position, or a number outside its bounds.
    Source: MM-RLHF, dpo_trainer.py:791-793
    """
    _check_numbers(beta, weight)
    wide = factors.detach().double()
    _refuse_any(~wide.isfinite(), wide, "factors", "must be finite")
    return (beta * (1.0 + weight * wide)).clamp(min=MIN_BETA)


def implicit_sample_weights(margins: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """exp(−½ ((z − mean) / σ)²) of each pair's log-ratio margin z; float64, on the CPU, not normalised.

    A single pair has weight 1; in the released code its σ, with Bessel's correction, is NaN.

    Raises:
        ValueError: no margin, or one that is not finite, named by its position.
    Source: MM-RLHF, dpo_trainer.py:797-806
    """
    z = _implicit_margins(margins)
    spread = z.std() if len(z) > 1 else z.new_zeros(())
    return (-0.5 * ((z - z.mean()) / (spread + _NO_SPREAD)).square()).exp()


def implicit_sample(margins: Float[Tensor, " N"], *, generator: torch.Generator) -> Int[Tensor, " M"]:
    """Draw ⌊4N/5⌋ of the pairs without replacement, at least one, those near the mean margin the likeliest.

    All ranks must end with one draw: make it on one and send it, or give all the same margins and seed.

    Args:
        margins: z of the whole batch, so of all ranks, nats.
        generator: On the CPU, with a seed of its own. The released code draws from the global one of each rank.
    Raises:
        ValueError: no margin, or one that is not finite, named by its position.
    Source: MM-RLHF, dpo_trainer.py:797-812, which draws nothing from a single pair and fails
    """
    weights = implicit_sample_weights(margins)
    return torch.multinomial(weights, max(4 * len(weights) // 5, 1), replacement=False, generator=generator)


def implicit_beta(
    margins: Float[Tensor, " N"], sample: Int[Tensor, " M"], *, beta: float, weight: float
) -> Float[Tensor, ""]:
    """max(β (1 + w (S − A)), ``MIN_BETA``): one β for the batch; S the mean margin of the sample, A that of all.

    For comparison with the released code, whose default it is. No reward enters, and the sample's mean is as often
    above as below the other, so it is plain DPO with a noisy β; the paper reports it as not working.

    Args:
        margins: z of the whole batch, as ``implicit_sample`` had it, nats.
        sample: From ``implicit_sample``.
        beta: β, 1/nats, positive.
        weight: w, per nat, not negative.
    Raises:
        ValueError: no margin or no sample, a margin that is not finite, or a number outside its bounds.
    Source: MM-RLHF, dpo_trainer.py:797-818; paper, appendix F.1
    """
    _check_numbers(beta, weight)
    z = _implicit_margins(margins)
    if not len(sample):
        raise ValueError("the sample is empty: its mean margin needs at least one pair")
    return (beta * (1.0 + weight * (z[sample.cpu()].mean() - z.mean()))).clamp(min=MIN_BETA)


def _implicit_margins(margins: Tensor) -> Tensor:
    """On the CPU, where the same seed draws the same pairs whatever the policy runs on."""
    z = margins.detach().double().cpu()
    if not len(z):
        raise ValueError("the batch has no pair to take a margin of")
    _refuse_any(~z.isfinite(), z, "margins", "must be finite")
    return z


def _check_numbers(beta: float, weight: float) -> None:
    if not 0.0 < beta < math.inf:
        raise ValueError(f"beta = {beta} must be positive and finite")
    if not 0.0 <= weight < math.inf:
        raise ValueError(f"weight = {weight} must be finite and not negative")


def _refuse_any(bad: Tensor, values: Tensor, name: str, bound: str) -> None:
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(f"{name}[{first}] = {values[first].item()} {bound}")
