"""Estimators of KL(policy ‖ reference) from single samples, and the controllers of its coefficient."""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.maths.masking import keep

KlEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(
    logprobs: Float[Tensor, "B T"],
    ref_logprobs: Float[Tensor, "B T"],
    action_mask: Bool[Tensor, "B T"],
    *,
    estimator: KlEstimator,
) -> Float[Tensor, "B T"]:
    """Per-token KL estimate, zero outside the mask.

    With d = log π − log π_ref: k1 = d (unbiased, signed), k2 = d²/2 (biased, low variance),
    k3 = e⁻ᵈ − 1 + d (unbiased, never negative).

    Source: Schulman, http://joschu.net/blog/kl-approx.html
    """
    difference = keep(logprobs - ref_logprobs, action_mask)
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference.square()
    # expm1 keeps the sign right where the two policies nearly agree.
    return (-difference).expm1() + difference


def next_kl_coef(
    kl_coef: float, *, observed_kl: float, target_kl: float | None, num_samples: int, horizon: int
) -> float:
    """KL coefficient of the next step: unchanged without a target, else moved towards it proportionally.

    β ← β (1 + clip(KL / target − 1, ±0.2) · num_samples / horizon)

    Args:
        observed_kl: Mean KL of the samples just seen, nats.
        num_samples: Samples since the last call; ``horizon`` is in the same unit.
    Source: Ziegler et al. 2019, section 2.2, https://arxiv.org/abs/1909.08593
    """
    if target_kl is None:
        return kl_coef
    error = min(max(observed_kl / target_kl - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * num_samples / horizon)
