"""Which pieces each algorithm is made of, as data."""

from dataclasses import dataclass
from typing import Literal

from algorithms.advantage_filter import AdvantageFilter
from algorithms.aggregation import Aggregation


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmSpec:
    """Defaults that make up one online algorithm; every one of them can be overridden by configuration."""

    advantage: Literal["whitened_return", "grpo", "rloo"]
    adv_filter: AdvantageFilter
    preclip_min: float | None
    preclip_max: float | None
    aggregation: Aggregation


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
