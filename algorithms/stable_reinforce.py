"""StableReinforce: REINFORCE++ with two guards against extreme tokens.

Advantages beyond three standard deviations count nothing, and the log-ratio is clamped before it is exponentiated
(Pre-CLIP). Zhang et al. 2025, R1-Reward, algorithm 1, https://arxiv.org/abs/2505.02835
"""

from algorithms.policy_gradient import PolicyGradient


class StableReinforce(PolicyGradient):
    """The section's own defaults are the paper's."""

    profiles = {
        "paper": {},
        # scripts/train.sh of https://github.com/yfzhang114/r1_reward
        "r1_released": {
            "algorithm.adv_filter": "r1_released",
            "algorithm.kl_coef": 1e-3,
            "optimizer.lr": 3e-7,
            "reward.scoring": "compat",
        },
    }
