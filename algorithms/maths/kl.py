"""Estimators of KL(policy ‖ reference) from single samples."""

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
