"""The settings that all policy-gradient algorithms share."""

from typing import Any, Literal

from pydantic import Field

from algorithms.settings import Count, Section, Share


class AlgorithmSection(Section):
    """The reinforcement learning objective."""

    adv_filter: Literal["none", "sigma3", "r1_released"] = "sigma3"
    """Which standardised advantages are set to zero: none, |z| > 3 (the paper), or the released code's rule."""
    preclip_min: float | None = Field(default=1e-3, gt=0.0, le=1.0)
    """Pre-CLIP: least ratio before exponentiation; none = off."""
    preclip_max: float | None = Field(default=1e3, ge=1.0)
    """Pre-CLIP: largest ratio before exponentiation; none = off."""
    clip_low: Share = 0.2
    """PPO clip: the ratio counts down to 1 - clip_low."""
    clip_high: float = Field(default=0.2, ge=0.0)
    """PPO clip: the ratio counts up to 1 + clip_high."""
    dual_clip: float | None = Field(default=None, gt=1.0)
    """Dual clip: a negative advantage costs no more than this times its size; none = off."""
    kl_coef: float = Field(default=0.0, ge=0.0)
    """Weight of the KL to the reference, in the reward or, where samples of a prompt are standardised, in the loss; 0 =
    no reference worker."""
    kl_estimator: Literal["k1", "k1_clamped", "k2", "k3"] = "k1"
    """Estimator of the KL divergence to the reference; k1_clamped charges only what the policy likes more."""
    kl_target: float | None = Field(default=None, gt=0.0)
    """KL to the reference, nats of a response, towards which kl_coef is adapted from step to step; none = it stays."""
    kl_horizon: Count = 10_000
    """Rollouts in which kl_coef may adapt by a fifth of itself."""
    gamma: Share = 1.0
    """Discount per completion token."""
    reward_clip: float | None = Field(default=10.0, gt=0.0)
    """Rewards are clamped to plus or minus this; none = off."""
    epochs: Count = 1
    """Times that the policy goes through the samples of a step, each time dealt out otherwise."""
    aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"] = (
        "seq-mean-token-mean"
    )
    """How per-token losses become one number."""
    parts: Literal["summed", "whitened"] = "summed"
    """What samples of a prompt are compared by: their reward, or each part of it and then the sum (GDPO)."""
    correction: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "none"
    """Weight of trainer over engine, of tokens or whole responses: truncate moves it to the nearer bound, mask drops
    what is outside; token_truncate is TIS, token_mask is IcePop."""
    correction_min: float | None = Field(default=None, gt=0.0)
    """Lower bound of that weight; none = 0."""
    correction_max: float = Field(default=2.0, gt=0.0)
    """Upper bound of that weight."""
    off_policy_max_kl: float | None = Field(default=None, gt=0.0)
    """Drop responses of negative advantage that are further than this from the engine, nats a token; none = off."""

    def check(self, config: Any) -> None:
        """Refuse bounds that nothing lies between, and one that bounds nothing."""
        if self.correction_min is not None and self.correction == "none":
            raise ValueError(
                f"algorithm.correction_min = {self.correction_min:g} has no meaning for algorithm.correction = 'none'"
            )
        if self.correction_min is not None and self.correction_min > self.correction_max:
            raise ValueError(
                f"algorithm.correction_min = {self.correction_min:g} must be at most algorithm.correction_max = "
                f"{self.correction_max:g}"
            )
