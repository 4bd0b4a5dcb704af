"""DAPO: GRPO whose clip leaves more room above than below, and in which every token of the batch counts alike.

Prompts whose samples all earn the same are replaced (eq. 11); of its four parts the punishment of overlong responses
(eq. 13) is a reward, ``reward.functions = ["...", "overlong?longest=...&buffer=..."]``. Yu et al. 2025, eq. 8, with
clip-higher (eq. 10) and the token-level loss (eq. 12), https://arxiv.org/abs/2503.14476
"""

from algorithms.grpo import Grpo


class Dapo(Grpo):
    """Settings alone."""

    defaults = {
        **Grpo.defaults,
        "algorithm.clip_low": 0.2,
        "algorithm.clip_high": 0.28,
        "algorithm.aggregation": "token-mean",
        "rollout.max_refills": 10,
    }
