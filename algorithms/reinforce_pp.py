"""REINFORCE++: no value model; returns are whitened over the whole batch. Also with a baseline of the prompt's own.

Hu 2025, https://arxiv.org/abs/2501.03262
"""

from algorithms.policy_gradient import UNGUARDED, PolicyGradient


class ReinforcePp(PolicyGradient):
    """StableReinforce without its two guards."""

    defaults = UNGUARDED


class ReinforcePpBaseline(PolicyGradient):
    """Rewards count by how far they are from the mean of their prompt's samples."""

    defaults = {**UNGUARDED, "rollout.samples_per_prompt": 8}
    compares_samples = True
