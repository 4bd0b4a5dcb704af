"""KTO: responses labelled desirable or undesirable, without pairs, against a baseline of the whole global batch.

The loop of one step: every prompt is scored with another one's completion besides its own, and its images stay with it;
the log-ratios of these mismatched pairs are summed, in float64 and detached; sum and count are added over *all* ranks;
``kto_baseline`` turns them into z₀; ``kto_loss`` is averaged over the rows of the global batch.
"""

import math

from jaxtyping import Bool, Float
from torch import Tensor

_WEIGHT_RATIO = (1.0, 4.0 / 3.0)
"""Bounds of (w_D n_D) / (w_U n_U) recommended by the paper."""
_ROUNDING = 1e-9


def kto_baseline(log_ratio_sum: float, count: int) -> float:
    """z₀ = max(0, mean log π/π_ref of mismatched pairs), nats: an estimate of KL(π ‖ π_ref), without gradient.

    Args:
        log_ratio_sum: Summed over the mismatched pairs of all ranks.
        count: Their number, over all ranks.
    Raises:
        ValueError: no pair, or a sum that is not finite.
    Source: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306
    """
    if count < 1:
        raise ValueError(f"count = {count} mismatched pairs: the baseline needs at least 1")
    if not math.isfinite(log_ratio_sum):
        raise ValueError(f"log_ratio_sum = {log_ratio_sum} must be finite")
    return max(0.0, log_ratio_sum / count)


def kto_loss(
    log_ratios: Float[Tensor, " B"],
    desirable: Bool[Tensor, " B"],
    *,
    baseline: float,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Loss of each labelled response, and its implicit reward β r with r the log-ratio.

    Desirable: w_D [1 − σ(β (r − z₀))]; undesirable: w_U [1 − σ(β (z₀ − r))].

    Args:
        log_ratios: log π − log π_ref summed over the response, nats.
        baseline: z₀ of the *global* batch, nats, from ``kto_baseline``.
        beta: 1/nats.
    Returns:
        ``(loss, rewards)``; only the loss carries gradient.
    Raises:
        ValueError: β not positive, or baseline or a weight negative.
    Source: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306
    """
    bounds = {"baseline": baseline, "desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    for name, value in bounds.items():
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{name} = {value} must be finite and not negative")
    if not 0.0 < beta < math.inf:
        raise ValueError(f"beta = {beta} must be positive and finite")
    above = beta * (log_ratios - baseline)
    # 1 − σ(x) is written σ(−x), which keeps its digits where σ(x) rounds to 1.
    loss = (desirable_weight * (-above).sigmoid()).where(desirable, undesirable_weight * above.sigmoid())
    return loss, beta * log_ratios.detach()


def kto_weight_warning(
    num_desirable: int, num_undesirable: int, *, desirable_weight: float, undesirable_weight: float
) -> str | None:
    """Sentence for the user when (w_D n_D) / (w_U n_U) is outside [1, 4/3]; None when the weights are fine.

    Args:
        num_desirable: Desirable examples of the whole data set; likewise ``num_undesirable``.
    Raises:
        ValueError: a negative count, or a weight that is not positive.
    Source: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306
    """
    if min(num_desirable, num_undesirable) < 0 or not (desirable_weight > 0 and undesirable_weight > 0):
        raise ValueError(
            f"counts ({num_desirable}, {num_undesirable}) must not be negative "
            f"and weights ({desirable_weight}, {undesirable_weight}) must be positive"
        )
    if not num_desirable or not num_undesirable:
        missing = "desirable" if not num_desirable else "undesirable"
        return f"KTO has no {missing} example, so no weights can balance the two kinds."
    low, high = _WEIGHT_RATIO
    wanted = undesirable_weight * num_undesirable / num_desirable
    ratio = desirable_weight / wanted
    if low - _ROUNDING <= ratio <= high + _ROUNDING:
        return None
    return (
        f"(desirable_weight x {num_desirable}) / (undesirable_weight x {num_undesirable}) = {ratio:.3g} is outside "
        f"[1, 4/3]: set desirable_weight between {low * wanted:.4g} and {high * wanted:.4g}, "
        f"or change undesirable_weight alone."
    )
