"""From the log-probs of a micro-batch to the scalar a rank back-propagates, with the sums the driver reports.

Weights are shares of the *global* batch's objective, so micro-batches and ranks only ever add up.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from algorithms.maths.logprobs import TokenScores
from algorithms.maths.off_policy import logprob_mismatch, truncated_is_weights
from algorithms.maths.policy_losses import ppo_clip_loss_map, sft_loss_map
from algorithms.maths.preference_losses import DpoKind
from algorithms.records import PLAIN, SamplingDistribution, TrainSample
from workers.models.reward_head import HeadKind


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec:
    """Which loss, and its numbers."""

    kind: Literal["policy_gradient", "sft", "preference", "bradley_terry", "critique_rm"]
    """``bradley_terry`` trains a scalar head in place of the language model's, ``critique_rm`` both heads."""
    sampling: SamplingDistribution = PLAIN
    """What the trained tokens were drawn from; the loss is of its log-probs."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    preclip_min: float | None = None
    """Lower Pre-CLIP bound on the ratio; None switches Pre-CLIP off."""
    preclip_max: float | None = None
    tis_cap: float | None = None
    """Cap of the truncated importance weights between trainer and engine; None applies none."""
    pair_kind: DpoKind = "sigmoid"
    label_smoothing: float = 0.0
    """Probability that a pair's labels are swapped."""
    reward_head: HeadKind = "linear"
    critique_request: str | None = None
    """What the model is asked before it writes a critique; None where it writes none."""


@dataclass(slots=True, kw_only=True)
class UpdateStats:
    """Sums over one rank's loss tokens in one optimizer step; the driver adds ranks and divides."""

    loss: float = 0.0
    """This rank's share of the global objective."""
    num_tokens: int = 0
    entropy_sum: float = 0.0
    preclip_hits: int = 0
    clip_hits: int = 0
    grad_norm: float = 0.0
    """Before clipping; NaN where no step was taken."""
    lr: float = 0.0
    gap_sum: float = 0.0
    """Absolute difference to the engines' log-probs, nats, where the update's own forward gave the old ones."""
    gap_max: float = 0.0
    num_unscored: int = 0
    """Tokens for which the engine gave no finite log-prob."""
    greedy_hits: int = 0
    """Tokens that were the likeliest of all."""
    num_pairs: int = 0
    margin_sum: float = 0.0
    """Implicit reward of the chosen response less that of the rejected one, over pairs."""
    num_correct: int = 0
    """Pairs in which the chosen response has the greater reward."""
    num_chosen: int = 0
    chosen_reward_sum: float = 0.0
    """Over chosen responses, or desirable ones."""
    num_rejected: int = 0
    rejected_reward_sum: float = 0.0
    imitation_loss: float = 0.0
    """This rank's share of the cross-entropy that is part of the loss of preferences."""
    nonfinite: tuple[str, ...] = ()
    """Samples whose loss was not finite, or the whole micro-batch whose gradient was not, or all where only their sum
    was not; then no rank has stepped."""


def token_objective(
    samples: Seq[TrainSample], pieces: Seq[Tensor], scores: TokenScores, spec: LossSpec, stats: UpdateStats
) -> Tensor:
    """Sum of weighted per-token losses.

    Args:
        pieces: Log-probs of each sample's action tokens, float32 ``[L_i]``, nats.
        scores: Of all of them, ``[N]``.
        stats: Added to.
    """
    logprobs = torch.cat(list(pieces))[None]
    weight = _of_actions(samples, "loss_weight", logprobs)
    mask = weight > 0
    if spec.kind == "sft":
        loss_map = sft_loss_map(logprobs, mask)
    else:
        loss_map = policy_loss_map(samples, logprobs, mask, spec, stats)
    per_token = torch.where(mask, loss_map * weight, 0.0)[0]
    per_sample = torch.stack([part.sum() for part in per_token.split([len(p) for p in pieces])])
    finite = torch.isfinite(per_sample).tolist()
    stats.nonfinite += tuple(s.uid for s, ok in zip(samples, finite, strict=True) if not ok)
    stats.loss += float(per_sample.detach().sum())
    stats.num_tokens += int(mask.sum())
    stats.entropy_sum += float(scores.entropy[mask[0]].sum())
    stats.greedy_hits += int(scores.greedy[mask[0]].sum())
    return per_sample.sum()


def policy_loss_map(
    samples: Seq[TrainSample], logprobs: Tensor, mask: Tensor, spec: LossSpec, stats: UpdateStats
) -> Tensor:
    """The clipped policy-gradient loss of every action token, ``[1, N]``."""
    advantages, rollout = (_of_actions(samples, f, logprobs) for f in ("advantages", "rollout_logprobs"))
    if samples[0].old_logprobs is None:
        old = logprobs.detach()
        gap = logprob_mismatch(old, rollout, mask)
        stats.gap_sum += gap.abs_mean * (int(mask.sum()) - gap.num_nonfinite)
        stats.gap_max = max(stats.gap_max, gap.abs_max)
        stats.num_unscored += gap.num_nonfinite
    else:
        old = _of_actions(samples, "old_logprobs", logprobs)
    result = ppo_clip_loss_map(
        logprobs,
        old,
        advantages,
        mask,
        clip_low=spec.clip_low,
        clip_high=spec.clip_high,
        preclip_min=spec.preclip_min,
        preclip_max=spec.preclip_max,
    )
    stats.preclip_hits += int(result.preclip_hit.sum())
    stats.clip_hits += int(result.clip_hit.sum())
    if spec.tis_cap is None:
        return result.loss
    return result.loss * truncated_is_weights(old, rollout, mask, cap=spec.tis_cap)


def _of_actions(samples: Seq[TrainSample], field: str, like: Tensor) -> Tensor:
    """One field of every action token, float32 ``[1, N]`` like the log-probs."""
    rows = [getattr(s, field)[s.sequence.prompt_len :] for s in samples]
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))[None].to(like.device)
