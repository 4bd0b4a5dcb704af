"""DAPO: GRPO whose clip leaves more room above than below, and in which every token of the batch counts alike.

Yu et al. 2025, eq. 8, with clip-higher (eq. 10) and the token-level loss (eq. 12), https://arxiv.org/abs/2503.14476
"""

from algorithms.grpo import Grpo


class Dapo(Grpo):
    """Settings alone."""

    defaults = {
        **Grpo.defaults,
        "algorithm.clip_low": 0.2,
        "algorithm.clip_high": 0.28,
        "algorithm.aggregation": "token-mean",
    }
