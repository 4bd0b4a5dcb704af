"""PPO as in Fact-RLHF, whose reward model is told facts and whose reward has symbolic parts (``reward.functions``).

The defaults are its numbers without what was an accident of its code: only what was sampled counts, and the score is
paid where it ends. The profile ``fact_rlhf_paper`` has the accidents too, for comparison. Sun et al. 2023,
https://arxiv.org/abs/2309.14525
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from algorithms.estimates import Estimate
from algorithms.policy_gradient import UNGUARDED
from algorithms.ppo import Ppo
from algorithms.records import Rollout
from algorithms.records import Sequence as TokenSequence
from algorithms.settings import Section

if TYPE_CHECKING:
    from torch import Tensor

    from algorithms.algorithm import Ask

_LONGEST = 896
"""Tokens of a response there."""
_LEAST_ROLLOUTS = 8
"""That are whitened together there."""
_RELEASED_REWARD = (
    "scalar",
    "correctness?released=true",
    f"length_cost?longest={_LONGEST}&weight=10",
    "unfinished?weight=8",
)


class FactPpoSection(Section):
    """What counts in the estimates of Fact-RLHF."""

    columns: Literal["actions", "released"] = "actions"
    """What was sampled; or, as in the release, rollout.max_new_tokens columns of every response, padding among them, in
    GAE, in whitening and in the critic's loss, with the score in the last of them."""


class FactPpo(Ppo):
    """PPO whose KL is charged where the policy likes a token more than the reference does, and nowhere paid back."""

    sections = {**Ppo.sections, "fact_ppo": FactPpoSection}
    defaults = {
        **UNGUARDED,
        "algorithm.aggregation": "token-mean",
        "algorithm.kl_coef": 0.1,
        "algorithm.kl_estimator": "k1_clamped",
        "algorithm.reward_clip": None,
        "algorithm.epochs": 2,
        "critic.epochs": 2,
        "critic.gae_lambda": 1.0,
    }
    profiles = {
        "paper": {},
        # train_rl_model.sh and ppo_trainer.py of https://github.com/llava-rlhf/LLaVA-RLHF
        "fact_rlhf_paper": {
            "fact_ppo.columns": "released",
            "algorithm.aggregation": "seq-mean-token-sum-norm",
            "critic.reward_scale": 10.0,
            "reward.functions": _RELEASED_REWARD,
            "rollout.max_new_tokens": _LONGEST,
            "rollout.prompts_per_step": 512,
            "policy.train_batch_size": 256,
            "optimizer.lr": 3e-5,
        },
    }

    @property
    def counts_padding(self) -> bool:
        """Whether padding counts, as in the release."""
        own = self.settings["fact_ppo"]
        assert isinstance(own, FactPpoSection)
        return own.columns == "released"

    @property
    def weighing(self) -> None:
        """None: Fact-RLHF learns from what the policy samples, and columns of padding have no weight."""
        return None

    def check(self, config: Any) -> None:
        """Refuse other means than over all columns, and fewer rollouts than the release whitens."""
        super().check(config)
        rollouts = config.rollout.prompts_per_step * config.rollout.samples_per_prompt
        if self.counts_padding and self.critic.whiten and rollouts < _LEAST_ROLLOUTS:
            raise ValueError(
                f"rollout.prompts_per_step * rollout.samples_per_prompt = {rollouts} must be at least "
                f"{_LEAST_ROLLOUTS} for fact_ppo.columns = 'released', which whitens no fewer"
            )
        if self.counts_padding and self.section.aggregation != "seq-mean-token-sum-norm":
            raise ValueError(
                f"algorithm.aggregation = {self.section.aggregation!r} must be 'seq-mean-token-sum-norm' for "
                "fact_ppo.columns = 'released', whose means are over all columns"
            )

    def seen_by_critic(self, sequence: TokenSequence, ask: "Ask") -> TokenSequence:
        """With padding up to the longest response, where that counts."""
        import numpy as np

        missing = sequence.prompt_len + ask.longest_response - len(sequence.input_ids)
        if not self.counts_padding or missing <= 0:
            return sequence
        padding = np.full(missing, ask.pad_id, sequence.input_ids.dtype)
        return replace(sequence, input_ids=np.concatenate([sequence.input_ids, padding]))

    def estimate(
        self, rollouts: Sequence[Rollout], scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor"
    ) -> Estimate:
        """As PPO's, or over columns, of which the first is the first token of every response."""
        if not self.counts_padding:
            return super().estimate(rollouts, scores, prompts, kl, mask)
        import torch

        from algorithms.maths.released_columns import released_columns

        own, critic, starts = self.section, self.critic, [r.sequence.prompt_len for r in rollouts]
        values = [torch.from_numpy(r.values)[r.sequence.prompt_len :] for r in rollouts if r.values is not None]
        of_columns = torch.stack(values)
        charged = torch.zeros_like(of_columns)
        for row, start, nats in zip(charged, starts, kl, strict=True):
            row[: len(nats) - start] = nats[start:][: len(row)]
        found = released_columns(
            scores, charged, of_columns, kl_coef=own.kl_coef, reward_clip=own.reward_clip, gamma=own.gamma,
            lam=critic.gae_lambda, reward_scale=critic.reward_scale,
            least_rows=_LEAST_ROLLOUTS if critic.whiten else None,
        )  # fmt: skip
        width = max(starts) + of_columns.shape[1]
        valued, advantages, returns = (
            _placed(columns, starts, width) for columns in (of_columns, found.advantages, found.returns)
        )
        sampled = slice(mask.shape[1])
        return Estimate(
            advantages=advantages[:, sampled].where(mask, 0.0),
            raw_mean=found.raw_mean,
            returns=returns,
            figures=self.critic_figures(valued[:, sampled], returns[:, sampled], mask),
        )


def _placed(columns: "Tensor", starts: Sequence[int], width: int) -> "Tensor":
    """Columns where their tokens stand, ``[B, width]``; 0 elsewhere."""
    out = columns.new_zeros(len(columns), width)
    for row, start, found in zip(out, starts, columns, strict=True):
        row[start : start + len(found)] = found
    return out
