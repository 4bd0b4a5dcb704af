"""GRPO: a sample's advantage is its reward standardised among the samples of its prompt.

Shao et al. 2024, DeepSeekMath, section 4.1, https://arxiv.org/abs/2402.03300
"""

from algorithms.policy_gradient import UNGUARDED, PolicyGradient


class Grpo(PolicyGradient):
    """Every token of a sample has the sample's advantage."""

    defaults = {**UNGUARDED, "rollout.samples_per_prompt": 8}
    compares_samples = True
