"""Which pieces each algorithm is made of, as data."""

from dataclasses import dataclass
from typing import Literal

from algorithms.maths.advantage_filter import AdvantageFilter
from algorithms.maths.aggregation import Aggregation
from algorithms.maths.kl import KlEstimator


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmSpec:
    """Defaults that make up one online algorithm; every one of them can be overridden by configuration."""

    advantage: Literal["whitened_return", "grpo", "rloo"]
    adv_filter: AdvantageFilter
    preclip_min: float | None
    """Lower Pre-CLIP bound on the ratio; None in both bounds switches Pre-CLIP off."""
    preclip_max: float | None
    aggregation: Aggregation
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_estimator: KlEstimator = "k1"
    """Estimator of the KL term that shapes the rewards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the paper of StableReinforce and its released code disagree."""

    adv_filter: AdvantageFilter
    kl_coef: float
    learning_rate: float


ALGORITHMS: dict[str, AlgorithmSpec] = {
    "stable_reinforce": AlgorithmSpec(
        advantage="whitened_return",
        adv_filter="sigma3",
        preclip_min=1e-3,
        preclip_max=1e3,
        aggregation="seq-mean-token-mean",
    ),
    # StableReinforce without its two guards.
    "reinforce_pp": AlgorithmSpec(
        advantage="whitened_return",
        adv_filter="none",
        preclip_min=None,
        preclip_max=None,
        aggregation="seq-mean-token-mean",
    ),
    "grpo": AlgorithmSpec(
        advantage="grpo", adv_filter="none", preclip_min=None, preclip_max=None, aggregation="seq-mean-token-mean"
    ),
    "rloo": AlgorithmSpec(
        advantage="rloo", adv_filter="none", preclip_min=None, preclip_max=None, aggregation="token-mean"
    ),
}

PROFILES: dict[str, Profile] = {
    "paper": Profile(adv_filter="sigma3", kl_coef=0.0, learning_rate=1e-6),
    "r1_released": Profile(adv_filter="r1_released", kl_coef=1e-3, learning_rate=3e-7),
}
"""Profiles of ``stable_reinforce``; ``paper`` is the default."""
