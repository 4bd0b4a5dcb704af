"""RLOO: a sample's advantage is its reward less the mean reward of the prompt's other samples.

Ahmadian et al. 2024, section 2.3, https://arxiv.org/abs/2402.14740
"""

from algorithms.policy_gradient import UNGUARDED, PolicyGradient


class Rloo(PolicyGradient):
    """Every token of a sample has the sample's advantage."""

    defaults = {**UNGUARDED, "algorithm.aggregation": "token-mean", "rollout.samples_per_prompt": 8}
    compares_samples = True
