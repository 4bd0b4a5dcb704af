"""PPO with a critic: advantages by GAE from values that a second model learns.

Schulman et al. 2017, eq. 7 and 11, https://arxiv.org/abs/1707.06347; with the KL to a reference in the reward, Ziegler
et al. 2019, eq. 2, https://arxiv.org/abs/1909.08593
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from algorithms.algorithm import Needs
from algorithms.critic import EXPLAINED, FIGURES, RETURN, VALUE, CriticSection, ValueSample
from algorithms.estimates import Estimate
from algorithms.policy_gradient import UNGUARDED, PolicyGradient
from algorithms.records import Rollout
from algorithms.tokens import stacked, step_weights

if TYPE_CHECKING:
    from torch import Tensor

    from algorithms.algorithm import Ask


class Ppo(PolicyGradient):
    """Clipped policy and clipped values; a rollout of a prompt needs no sibling."""

    sections = {**PolicyGradient.sections, "critic": CriticSection}
    defaults = {**UNGUARDED, "algorithm.aggregation": "token-mean"}
    figures = (*PolicyGradient.figures, *FIGURES)

    @property
    def critic(self) -> CriticSection:
        """Its numbers."""
        own = self.settings["critic"]
        assert isinstance(own, CriticSection)
        return own

    @property
    def needs(self) -> Needs:
        """Prompts, a critic, and a reference where leaving it costs."""
        return Needs(data=("prompts",), reference=self.section.kl_coef > 0, critic=self.critic.model)

    def check(self, config: Any) -> None:
        """Refuse what a critic has no part in."""
        super().check(config)
        if self.section.parts != "summed":
            raise ValueError(f"algorithm.parts = {self.section.parts!r} must be 'summed' for algo = {self.name!r}")
        if (warmup := self.critic.warmup_steps) >= config.run.steps:
            raise ValueError(
                f"critic.warmup_steps = {warmup} must be below run.steps = {config.run.steps}: the policy would learn "
                "nothing"
            )

    def estimate(
        self, rollouts: Sequence[Rollout], scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor"
    ) -> Estimate:
        """Aₜ = δₜ + γλ Aₜ₊₁ over action tokens, whitened over all of them; returns are A + v before that."""
        from algorithms.maths.advantages import place_terminal_reward, token_moments, whiten
        from algorithms.maths.gae import gae

        own, critic = self.section, self.critic
        values = stacked([r.values for r in rollouts if r.values is not None])
        rewards = place_terminal_reward(scores, kl, mask, kl_coef=own.kl_coef, reward_clip=own.reward_clip)
        advantages, returns = gae(
            rewards, values, mask, gamma=own.gamma, lam=critic.gae_lambda, reward_scale=critic.reward_scale
        )
        moments = token_moments(advantages, mask)
        return Estimate(
            advantages=whiten(advantages, mask, moments) if critic.whiten else advantages,
            raw_mean=moments.mean,
            returns=returns,
            figures=self.critic_figures(values, returns, mask),
        )

    def critic_figures(self, values: "Tensor", returns: "Tensor", mask: "Tensor") -> dict[str, float]:
        """What the critic knew before the step's updates."""
        from algorithms.maths.masking import masked_mean
        from algorithms.maths.value_losses import explained_variance

        explained = explained_variance(values, returns, mask)
        return {
            **({} if explained is None else {EXPLAINED: explained}),
            VALUE: float(masked_mean(values, mask)),
            RETURN: float(masked_mean(returns, mask)),
        }

    def critic_updates(self, rollouts: Sequence[Rollout], returns: "Tensor", ask: "Ask") -> list[list[ValueSample]]:
        """The same rollouts as the policy's, dealt out alike, with what the critic is to say of them."""
        uids = [r.sequence.uid for r in rollouts]
        return [
            self._critic_update([rollouts[i] for i in part], returns[part], ask)
            for epoch in range(self.critic.epochs)
            for part in ask.deal(uids, epoch=epoch)
        ]

    def _critic_update(self, rollouts: Sequence[Rollout], returns: "Tensor", ask: "Ask") -> list[ValueSample]:
        """Samples of one optimizer step."""
        read = [self.seen_by_critic(r.sequence, ask) for r in rollouts]
        weights = step_weights(read, aggregation=self.section.aggregation, longest_response=ask.longest_response)
        return [
            ValueSample(sequence=sequence, loss_weight=weight, returns=row[: len(weight)], old_values=r.values)
            for r, sequence, weight, row in zip(rollouts, read, weights, returns.numpy(), strict=True)
            if r.values is not None
        ]
