"""From completions and rewards to training samples: KL shaping, returns, whitening, filter, weights.

All of it happens in the driver over the whole rollout, so that no statistic depends on the number of ranks.
A rollout whose reward failed takes no part in any statistic, has no weight in the loss and is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from algorithms.maths.advantage_filter import AdvantageFilter, FilterResult, filter_advantages
from algorithms.maths.advantages import group_advantages, token_moments, whiten
from algorithms.maths.aggregation import Aggregation, token_weights
from algorithms.maths.kl import KlEstimator, kl_estimate
from algorithms.maths.masking import masked_mean
from algorithms.maths.off_policy import Mismatch, logprob_mismatch
from algorithms.maths.returns import discounted_returns, place_terminal_reward
from algorithms.records import Rollout, TrainSample
from algorithms.records import Sequence as TokenSequence
from orchestrator.errors import GuardStop


class AdvantageSettings(Protocol):
    """The numbers of the configuration's ``algorithm`` section that shape advantages."""

    @property
    def adv_filter(self) -> AdvantageFilter: ...
    @property
    def kl_coef(self) -> float: ...
    @property
    def kl_estimator(self) -> KlEstimator: ...
    @property
    def gamma(self) -> float: ...
    @property
    def reward_clip(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """Scored rollouts with an advantage per token."""

    rollouts: tuple[Rollout, ...]
    """Those with a reward, in sampling order."""
    advantages: Tensor
    """float32 ``[B, T]``."""
    mask: Tensor
    """bool ``[B, T]``, the policy's tokens."""
    kl_mean: float
    mismatch: Mismatch | None
    """None where the trainer's log-probs are not known yet."""
    filtered: FilterResult


def make_experience(rollouts: Sequence[Rollout], *, algo: str, settings: AdvantageSettings) -> Experience:
    """Compute advantages over the whole rollout.

    Args:
        rollouts: At least one with a reward.
        algo: Name in ``algorithms.registry``.
    """
    scored = tuple(r for r in rollouts if r.reward is not None)
    mask = _stack([r.sequence.action_mask for r in scored]).bool()
    kl, mismatch = torch.zeros(mask.shape), None
    olds = [r.old_logprobs for r in scored if r.old_logprobs is not None]
    refs = [r.ref_logprobs for r in scored if r.ref_logprobs is not None]
    if olds:
        mismatch = logprob_mismatch(_stack(olds), _stack([r.rollout_logprobs for r in scored]), mask)
    if refs:
        kl = kl_estimate(_stack(olds), _stack(refs), mask, estimator=settings.kl_estimator)
    scores = torch.tensor([r.reward for r in scored], dtype=torch.float32)
    raw_mean = 0.0
    if algo not in ("grpo", "rloo"):
        rewards = place_terminal_reward(scores, kl, mask, kl_coef=settings.kl_coef, reward_clip=settings.reward_clip)
        returns = discounted_returns(rewards, mask, gamma=settings.gamma)
        try:
            moments = token_moments(returns, mask)
        except ValueError as error:
            raise GuardStop(f"advantages cannot be computed: {error}") from error
        advantages, raw_mean = whiten(returns, mask, moments), moments.mean
    else:
        advantages = _group_relative(scored, scores, mask, algo)
    filtered = filter_advantages(advantages, mask, rule=settings.adv_filter, raw_mean=raw_mean)
    return Experience(
        rollouts=scored,
        advantages=filtered.advantages,
        mask=mask,
        kl_mean=float(masked_mean(kl, mask)),
        mismatch=mismatch,
        filtered=filtered,
    )


def training_samples(
    experience: Experience, indices: Sequence[int], *, aggregation: Aggregation, max_tokens: int
) -> list[TrainSample]:
    """Samples of one optimizer step; their weights count over exactly these sequences.

    Args:
        indices: Rows of ``experience``.
        max_tokens: Divisor of ``seq-mean-token-sum-norm``.
    """
    mask = experience.mask[list(indices)]
    weights = token_weights(
        mask,
        mode=aggregation,
        global_num_sequences=int(mask.any(dim=1).sum()),
        global_num_tokens=int(mask.sum()),
        max_tokens=max_tokens,
    )
    samples = []
    for row, index in enumerate(indices):
        rollout = experience.rollouts[index]
        length = len(rollout.sequence.input_ids)
        samples.append(
            TrainSample(
                sequence=rollout.sequence,
                loss_weight=weights[row, :length].numpy(),
                advantages=experience.advantages[index, :length].numpy(),
                old_logprobs=rollout.old_logprobs,
                rollout_logprobs=rollout.rollout_logprobs,
            )
        )
    return samples


def supervised_samples(sequences: Sequence[TokenSequence], *, aggregation: Aggregation) -> list[TrainSample]:
    """Demonstrations of one optimizer step: every completion token counts, by the same weights as in RL."""
    mask = _stack([s.action_mask for s in sequences]).bool()
    weights = token_weights(
        mask,
        mode=aggregation,
        global_num_sequences=len(sequences),
        global_num_tokens=int(mask.sum()),
    )
    samples = []
    for row, sequence in enumerate(sequences):
        nothing = np.zeros(len(sequence.input_ids), dtype=np.float32)
        samples.append(
            TrainSample(
                sequence=sequence,
                loss_weight=weights[row, : len(nothing)].numpy(),
                advantages=nothing,
                old_logprobs=nothing,
                rollout_logprobs=nothing,
            )
        )
    return samples


def _group_relative(scored: Sequence[Rollout], scores: Tensor, mask: Tensor, algo: str) -> Tensor:
    """Advantage of each rollout among the samples of its prompt, on every one of its tokens."""
    uids = {uid: i for i, uid in enumerate(dict.fromkeys(r.sequence.uid for r in scored))}
    groups = torch.tensor([uids[r.sequence.uid] for r in scored])
    baseline = "grpo" if algo == "grpo" else "rloo"
    per_rollout = group_advantages(scores, groups, torch.ones(len(scored), dtype=torch.bool), baseline=baseline)
    return torch.where(mask, per_rollout.unsqueeze(1), 0.0)


def _stack(rows: Sequence[np.ndarray]) -> Tensor:
    """Right-pad rows with zeros to one float32 ``[B, T]`` tensor."""
    out = torch.zeros(len(rows), max(len(r) for r in rows), dtype=torch.float32)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.from_numpy(np.array(row, dtype=np.float32))
    return out
