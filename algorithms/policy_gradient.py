"""What the policy-gradient algorithms share: engines answer prompts, answers are rewarded, tokens learn by advantage.

Their files say only how rewards become advantages, and which settings differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from algorithms.algorithm import Algorithm, Ask, Needs, Objective, Scores, StepSamples, Unlearnable
from algorithms.figures import Figure, Tallies
from algorithms.records import Rollout, TrainSample
from algorithms.settings import Section, Share
from algorithms.tokens import (
    ENTROPY,
    TokenObjective,
    mean_over,
    mismatch_tallies,
    of_actions,
    stacked,
    step_weights,
)

if TYPE_CHECKING:
    from torch import Tensor

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


_GUARDS = "Guards: share of tokens"
_PRECLIP = Figure("policy/preclip_frac", "share of the action tokens bounded by Pre-CLIP", _GUARDS, "Pre-CLIP")
_CLIP = Figure("policy/clip_frac", "share of the action tokens bounded by the PPO clip", _GUARDS, "PPO clip")
_OF_STEP = (
    Figure(
        "adv/filtered_pos_frac",
        "share of the tokens whose positive advantage the filter set to zero",
        _GUARDS,
        "filtered, positive",
    ),
    Figure(
        "adv/filtered_neg_frac",
        "share of the tokens whose negative advantage the filter set to zero",
        _GUARDS,
        "filtered, negative",
    ),
    Figure(
        "kl/ref",
        "KL estimate to the reference, mean over action tokens; 0 without a reference",
        "KL to the reference, nats",
        "KL",
    ),
)
_CORRECTION_CAP = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedObjective(TokenObjective):
    """PPO's clipped policy gradient, with Pre-CLIP and a correction for the engines' log-probs where they are on."""

    clip_low: float
    clip_high: float
    preclip_min: float | None = None
    """Lower Pre-CLIP bound on the ratio; None switches Pre-CLIP off."""
    preclip_max: float | None = None
    tis_cap: float | None = None
    """Cap of the truncated importance weights between trainer and engine; None applies none."""

    def loss_map(
        self, samples: Sequence[TrainSample], scores: Scores, logprobs: "Tensor", mask: "Tensor"
    ) -> "tuple[Tensor, Tallies]":
        """Old log-probs that nobody has asked for are those that the update starts from."""
        from algorithms.maths.logprobs import truncated_is_weights
        from algorithms.maths.policy_losses import ppo_clip_loss_map

        advantages, rollout = (of_actions(samples, name, logprobs) for name in ("advantages", "rollout_logprobs"))
        gap: Tallies = {}
        if samples[0].old_logprobs is None:
            old = logprobs.detach()
            gap = mismatch_tallies(old, rollout, mask)
        else:
            old = of_actions(samples, "old_logprobs", logprobs)
        result = ppo_clip_loss_map(
            logprobs,
            old,
            advantages,
            mask,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            preclip_min=self.preclip_min,
            preclip_max=self.preclip_max,
        )
        figures = {
            _PRECLIP.name: mean_over(result.preclip_hit[0], mask),
            _CLIP.name: mean_over(result.clip_hit[0], mask),
            **gap,
        }
        if self.tis_cap is None:
            return result.loss, figures
        return result.loss * truncated_is_weights(old, rollout, mask, cap=self.tis_cap), figures


class PolicyGradient(Algorithm):
    """The family; its members say what an advantage is."""

    sections = {"algorithm": AlgorithmSection}
    figures = (*_OF_STEP, ENTROPY, _PRECLIP, _CLIP)
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

    def objective(self) -> Objective:
        """The clipped one."""
        own = self.section
        return ClippedObjective(
            clip_low=own.clip_low,
            clip_high=own.clip_high,
            preclip_min=own.preclip_min,
            preclip_max=own.preclip_max,
            tis_cap=own.tis_cap,
        )

    def samples(self, batch: Sequence[Rollout], ask: Ask) -> StepSamples:
        """Advantages over the whole rollout, so that no statistic depends on the number of ranks, then its updates.

        A rollout whose reward failed takes no part in any statistic and has no weight in the loss.
        """
        import torch

        from algorithms.maths.advantages import filter_advantages
        from algorithms.maths.logprobs import kl_estimate
        from algorithms.maths.masking import masked_mean

        scored = [r for r in batch if r.reward is not None]
        uids = [r.sequence.uid for r in scored]
        number = {uid: index for index, uid in enumerate(dict.fromkeys(uids))}
        mask = stacked([r.sequence.action_mask for r in scored]).bool()
        kl = torch.zeros(mask.shape)
        refs = [r.ref_logprobs for r in scored if r.ref_logprobs is not None]
        if refs:
            olds = stacked([r.old_logprobs for r in scored if r.old_logprobs is not None])
            kl = kl_estimate(olds, stacked(refs), mask, estimator=self.section.kl_estimator)
        scores = torch.tensor([r.reward for r in scored], dtype=torch.float32)
        try:
            advantages, raw_mean = self.advantages(scores, torch.tensor([number[uid] for uid in uids]), kl, mask)
        except ValueError as error:
            raise Unlearnable(f"advantages cannot be computed: {error}") from error
        filtered = filter_advantages(advantages, mask, rule=self.section.adv_filter, raw_mean=raw_mean)
        rows = filtered.advantages.numpy()
        updates = [self._update([scored[i] for i in part], rows[part], ask) for part in ask.deal(uids)]
        told = (filtered.filtered_pos_frac, filtered.filtered_neg_frac, float(masked_mean(kl, mask)))
        return StepSamples(updates, {figure.name: value for figure, value in zip(_OF_STEP, told, strict=True)})

    def advantages(self, scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor") -> "tuple[Tensor, float]":
        """Advantages before the filter, ``[B, T]``, and the mean return before they were standardised.

        Here returns are whitened over all tokens of the rollout.

        Args:
            scores: Reward of each rollout, ``[B]``.
            prompts: int ``[B]``: rollouts of one prompt have one number.
            kl: Nats per token, ``[B, T]``; 0 without a reference.
            mask: bool ``[B, T]``, the policy's tokens.
        Raises:
            ValueError: a return is not finite.
        """
        from algorithms.maths.advantages import discounted_returns, place_terminal_reward, token_moments, whiten

        own = self.section
        rewards = place_terminal_reward(scores, kl, mask, kl_coef=own.kl_coef, reward_clip=own.reward_clip)
        returns = discounted_returns(rewards, mask, gamma=own.gamma)
        moments = token_moments(returns, mask)
        return whiten(returns, mask, moments), moments.mean

    def corrected(self, samples: Sequence[TrainSample]) -> list[TrainSample]:
        """Loss weights times truncated importance weights between trainer and engine, unless the loss has them."""
        import torch

        from algorithms.maths.logprobs import truncated_is_weights

        if self.section.tis_cap is not None:
            return list(samples)
        out = []
        for sample in samples:
            assert sample.old_logprobs is not None
            old, rollout = torch.from_numpy(sample.old_logprobs), torch.from_numpy(sample.rollout_logprobs)
            mask = torch.from_numpy(sample.loss_weight) > 0
            weights = truncated_is_weights(old[None], rollout[None], mask[None], cap=_CORRECTION_CAP)[0].numpy()
            out.append(replace(sample, loss_weight=sample.loss_weight * weights))
        return out

    def _update(self, rollouts: Sequence[Rollout], advantages: np.ndarray, ask: Ask) -> list[TrainSample]:
        """Samples of one optimizer step; their weights count over exactly these rollouts."""
        weights = step_weights(
            [r.sequence for r in rollouts],
            aggregation=self.section.aggregation,
            longest_response=ask.longest_response,
        )
        return [
            TrainSample(
                sequence=r.sequence,
                loss_weight=weight,
                advantages=row[: len(weight)],
                old_logprobs=r.old_logprobs,
                rollout_logprobs=r.rollout_logprobs,
            )
            for r, weight, row in zip(rollouts, weights, advantages, strict=True)
        ]
