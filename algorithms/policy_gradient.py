"""What the policy-gradient algorithms share: engines answer prompts, answers are rewarded, tokens learn by advantage.

Their files say only how rewards become advantages, and which settings differ.
"""

from typing import Any, Literal

from pydantic import Field

from algorithms.algorithm import Algorithm, Needs
from algorithms.settings import Section, Share

UNGUARDED = {"algorithm.adv_filter": "none", "algorithm.preclip_min": None, "algorithm.preclip_max": None}
"""Neither advantages are filtered nor ratios clamped: defaults of those that are not StableReinforce."""


class AlgorithmSection(Section):
    """The reinforcement learning objective."""

    adv_filter: Literal["none", "sigma3", "r1_released"] = "sigma3"
    """Which standardised advantages are set to zero: none, |z| > 3 (the paper), or the released code's rule."""
    preclip_min: float | None = Field(default=1e-3, gt=0.0, le=1.0)
    """Pre-CLIP: least ratio before exponentiation; none = off."""
    preclip_max: float | None = Field(default=1e3, ge=1.0)
    """Pre-CLIP: largest ratio before exponentiation; none = off."""
    clip_low: float = Field(default=0.2, ge=0.0, lt=1.0)
    """PPO clip: the ratio counts down to 1 - clip_low."""
    clip_high: float = Field(default=0.2, ge=0.0)
    """PPO clip: the ratio counts up to 1 + clip_high."""
    kl_coef: float = Field(default=0.0, ge=0.0)
    """Weight of the KL penalty in the reward; 0 = no reference worker."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Estimator of the KL divergence to the reference."""
    gamma: Share = 1.0
    """Discount per completion token."""
    reward_clip: float = Field(default=10.0, gt=0.0)
    """Rewards are clamped to plus or minus this."""
    aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"] = (
        "seq-mean-token-mean"
    )
    """How per-token losses become one number."""
    tis_cap: float | None = Field(default=None, gt=0.0)
    """Truncated importance sampling: largest trainer/engine ratio; none = off."""


class PolicyGradient(Algorithm):
    """The family; its members say what an advantage is."""

    sections = {"algorithm": AlgorithmSection}
    compares_samples = False
    """True where a prompt with a single sample teaches nothing."""

    @property
    def section(self) -> AlgorithmSection:
        """Its numbers."""
        section = self.settings["algorithm"]
        assert isinstance(section, AlgorithmSection)
        return section

    @property
    def needs(self) -> Needs:
        """Prompts; a reference where the reward pays for leaving it."""
        return Needs(data=("prompts",), reference=self.section.kl_coef > 0)

    def check(self, config: Any) -> None:
        """Refuse batches that cannot be dealt out, and samples whose log-probs would not be those that were drawn."""
        prompts, samples = config.rollout.prompts_per_step, config.rollout.samples_per_prompt
        size, top_p, critique = config.policy.train_batch_size, config.rollout.top_p, config.reward.critique
        if prompts * samples % size:
            raise ValueError(
                "rollout.prompts_per_step * rollout.samples_per_prompt = "
                f"{prompts} * {samples} = {prompts * samples} is not a multiple of "
                f"policy.train_batch_size = {size}"
            )
        if self.compares_samples and samples < 2:
            raise ValueError(
                f"rollout.samples_per_prompt = {samples} must be at least 2 for algo = {self.name!r}, which compares "
                "the samples of a prompt"
            )
        if top_p < 1:
            raise ValueError(
                f"rollout.top_p = {top_p:g} must be 1 for algo = {self.name!r}, which learns from what it samples: "
                "the log-probs that it trains are those of every token, not of the likeliest alone"
            )
        if critique.weight and critique.path is None:
            raise ValueError("reward.critique.path is not set, but reward.critique.weight above 0 needs it")
