"""What the policy-gradient algorithms share: engines answer prompts, answers are rewarded, tokens learn by advantage.

Their files say only how rewards become advantages, what the loss of a token is, and which settings differ.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from algorithms import kl_cost
from algorithms.algorithm import Algorithm, Ask, Needs, Objective, StepSamples, Unlearnable, Weighing
from algorithms.estimates import Estimate, parts_of
from algorithms.figures import Figure
from algorithms.policy_objective import CLIP, CORRECTION, GUARDS, PRECLIP, PolicyObjective, PolicyTokens
from algorithms.policy_settings import AlgorithmSection
from algorithms.records import Rollout, TrainSample
from algorithms.tokens import ENTROPY, action_masks, step_weights

if TYPE_CHECKING:
    from torch import Tensor

    from algorithms.maths.policy_losses import PolicyLoss

UNGUARDED = {"algorithm.adv_filter": "none", "algorithm.preclip_min": None, "algorithm.preclip_max": None}
"""Neither advantages are filtered nor ratios clamped: defaults of those that are not StableReinforce."""
_OF_STEP = (
    Figure(
        "adv/filtered_pos_frac",
        "share of the tokens whose positive advantage the filter set to zero",
        GUARDS,
        "filtered, positive",
    ),
    Figure(
        "adv/filtered_neg_frac",
        "share of the tokens whose negative advantage the filter set to zero",
        GUARDS,
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


class PolicyGradient(Algorithm):
    """The family; its members say what an advantage is."""

    sections = {"algorithm": AlgorithmSection}
    figures = (*_OF_STEP, kl_cost.COEF, ENTROPY, PRECLIP, CLIP, *CORRECTION)
    compares_samples = False
    """True where a prompt with a single sample teaches nothing."""
    kl_in_loss = False
    """Whether the KL to the reference is a term of the loss; else ``advantages`` charges it."""
    whitens_parts = False
    """Whether ``algorithm.parts`` can be ``whitened``."""
    unclipped = False
    """True where the loss bounds its ratios by other means than PPO's clip: then there is neither Pre-CLIP nor dual
    clip."""

    @property
    def section(self) -> AlgorithmSection:
        """Its numbers."""
        section = self.settings["algorithm"]
        assert isinstance(section, AlgorithmSection)
        return section

    @property
    def needs(self) -> Needs:
        """Prompts; a reference where leaving it costs."""
        return Needs(data=("prompts",), reference=self.section.kl_coef > 0)

    @property
    def weighing(self) -> Weighing | None:
        """As its section says; without a correction of its own by truncated weights of tokens."""
        own = self.section
        if own.correction == "none":
            return Weighing(mode="token_truncate", minimum=None, maximum=_CORRECTION_CAP)
        return Weighing(mode=own.correction, minimum=own.correction_min, maximum=own.correction_max)

    def epochs_at(self, step: int) -> int:
        """As its section says; none where the policy waits for its critic."""
        critic = self.needs.critic
        return 0 if critic is not None and step < critic.warmup_steps else self.section.epochs

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
        if config.rollout.max_refills and not self.needs.rewards:
            raise ValueError(
                f"rollout.max_refills = {config.rollout.max_refills} must be 0 for algo = {self.name!r} without "
                "rewards: no prompt is better than another"
            )
        if config.rollout.max_refills and self.section.parts == "whitened":
            raise ValueError(
                f"rollout.max_refills = {config.rollout.max_refills} must be 0 for algorithm.parts = 'whitened': "
                "samples of equal rewards may differ in their parts, and teach"
            )
        if config.rollout.max_refills and samples < 2:
            raise ValueError(
                f"rollout.max_refills = {config.rollout.max_refills} needs rollout.samples_per_prompt of at least 2, "
                f"not {samples}: one sample is always equal to itself"
            )
        if top_p < 1:
            raise ValueError(
                f"rollout.top_p = {top_p:g} must be 1 for algo = {self.name!r}, which learns from what it samples: "
                "the log-probs that it trains are those of every token, not of the likeliest alone"
            )
        if critique.weight and critique.path is None:
            raise ValueError("reward.critique.path is not set, but reward.critique.weight above 0 needs it")
        kl_cost.check(self.section, config, algo=self.name, in_loss=self.kl_in_loss)
        self._check_section()

    def objective(self) -> Objective:
        """What ``policy_loss`` says."""
        return PolicyObjective(self)

    def log_ratio(self, tokens: PolicyTokens) -> "Tensor":
        """log π / π_old that the loss is a function of, ``[1, N]``: here every token's own."""
        return tokens.logprobs - tokens.old_logprobs

    def policy_loss(self, log_ratio: "Tensor", tokens: PolicyTokens) -> "PolicyLoss":
        """The loss of every token before any weight; here PPO's clipped one."""
        from algorithms.maths.policy_losses import ppo_clip_loss_map

        own = self.section
        return ppo_clip_loss_map(
            log_ratio,
            tokens.advantages,
            tokens.mask,
            clip_low=own.clip_low,
            clip_high=own.clip_high,
            preclip_min=own.preclip_min,
            preclip_max=own.preclip_max,
            dual_clip=own.dual_clip,
        )

    def samples(self, batch: Sequence[Rollout], ask: Ask) -> StepSamples:
        """Advantages over the whole rollout, so that no statistic depends on the number of ranks, then its updates.

        A rollout whose reward failed takes no part in any statistic and has no weight in the loss.
        """
        import torch

        from algorithms.maths.advantages import filter_advantages
        from algorithms.maths.masking import masked_mean

        scored = [r for r in batch if r.reward is not None]
        uids, number = [r.sequence.uid for r in scored], dict[str, int]()
        mask = action_masks([r.sequence for r in scored])
        kl = kl_cost.nats(self.section, scored, mask)
        scores = torch.tensor([r.reward for r in scored], dtype=torch.float32)
        try:
            prompts = torch.tensor([number.setdefault(uid, len(number)) for uid in uids], dtype=torch.int64)
            cost = kl_cost.control(self.section, ask.state)
            found = self.charging(cost.coef).estimate(scored, scores, prompts, kl, mask)
        except ValueError as error:
            raise Unlearnable(f"advantages cannot be computed: {error}") from error
        if not bool((torch.isfinite(found.advantages) | ~mask).all()):
            raise Unlearnable("advantages cannot be computed: a reward or a log-prob behind one is not finite")
        filtered = filter_advantages(found.advantages, mask, rule=self.section.adv_filter, raw_mean=found.raw_mean)
        rows, epochs = filtered.advantages.numpy(), range(self.epochs_at(ask.step))
        updates = [
            self._update([scored[i] for i in part], [rows[i] for i in part], ask)
            for epoch in epochs
            for part in ask.deal(uids, epoch=epoch)
        ]
        of_critic = [] if found.returns is None else self.critic_updates(scored, found.returns, ask)
        # Without a reference ``kl`` is one 0, to be looked at once and not at every token.
        refers = kl.stride() != (0, 0)
        told = (filtered.filtered_pos_frac, filtered.filtered_neg_frac, float(masked_mean(kl, mask)) if refers else 0.0)
        figures = {figure.name: value for figure, value in zip(_OF_STEP, told, strict=True)}
        figures |= {} if self.section.kl_target is None else {kl_cost.COEF.name: cost.coef}
        # A policy that waits for its critic says nothing of what the cost does to it.
        state = kl_cost.after(cost, kl).state() if epochs else cost.state()
        return StepSamples(updates, {**figures, **found.figures}, of_critic, state)

    def charging(self, kl_coef: float) -> Self:
        """The same, at another cost of the KL to the reference."""
        own = self.section.model_copy(update={"kl_coef": kl_coef})
        return type(self)(self.name, {**self.settings, "algorithm": own})

    def estimate(
        self, rollouts: Sequence[Rollout], scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor"
    ) -> Estimate:
        """``advantages``, or those of each part of the rewards; a critic's values are in the rollouts.

        Raises:
            ValueError: something is not finite.
        """
        from algorithms.maths.advantages import decoupled_advantages, on_tokens

        if self.section.parts == "whitened":
            return Estimate(
                advantages=on_tokens(decoupled_advantages(*parts_of(rollouts), prompts), mask), raw_mean=0.0
            )
        advantages, raw_mean = self.advantages(scores, prompts, kl, mask)
        return Estimate(advantages=advantages, raw_mean=raw_mean)

    def critic_updates(self, rollouts: Sequence[Rollout], returns: "Tensor", ask: Ask) -> Sequence[Sequence[Any]]:
        """What a critic learns from in each optimizer step; asked where ``estimate`` tells returns."""
        raise NotImplementedError

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
        del rewards  # of a large step each of these takes hundreds of megabytes
        moments = token_moments(returns, mask)
        return whiten(returns, mask, moments), moments.mean

    def corrected(self, samples: Sequence[TrainSample]) -> list[TrainSample]:
        """Loss weights times truncated importance weights between trainer and engine, unless the loss has them."""
        import torch

        from algorithms.maths.importance import correction_weights

        if self.section.correction != "none":
            return list(samples)
        out = []
        for sample in samples:
            assert sample.old_logprobs is not None
            old, rollout = torch.from_numpy(sample.old_logprobs), torch.from_numpy(sample.rollout_logprobs)
            mask = torch.from_numpy(sample.loss_weight) > 0
            weights = correction_weights(
                old[None], rollout[None], mask[None], [len(old)], mode="token_truncate", minimum=None,
                maximum=_CORRECTION_CAP,
            )  # fmt: skip
            out.append(replace(sample, loss_weight=sample.loss_weight * weights[0].numpy()))
        return out

    def _update(self, rollouts: Sequence[Rollout], advantages: Sequence[np.ndarray], ask: Ask) -> list[TrainSample]:
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
                ref_logprobs=r.ref_logprobs if self.kl_in_loss else None,
            )
            for r, weight, row in zip(rollouts, weights, advantages, strict=True)
        ]

    def _check_section(self) -> None:
        """Refuse settings that this loss, or this estimate of advantages, has no place for."""
        own = self.section
        guards = {name: getattr(own, name) for name in ("preclip_min", "preclip_max", "dual_clip")}
        for name, value in guards.items():
            if self.unclipped and value is not None:
                raise ValueError(
                    f"algorithm.{name} = {value:g} must be none for algo = {self.name!r}, which has no PPO clip"
                )
        if own.parts == "whitened" and not self.whitens_parts:
            raise ValueError(
                f"algorithm.parts = 'whitened' must be 'summed' for algo = {self.name!r}, which does not standardise "
                "the samples of a prompt"
            )
        if self.kl_in_loss and own.kl_coef > 0 and own.kl_estimator in ("k1", "k1_clamped"):
            raise ValueError(
                f"algorithm.kl_estimator = {own.kl_estimator!r} must be 'k2' or 'k3' for algo = {self.name!r}, whose "
                "loss has the KL: the gradient of k1 is 0 on average"
            )
