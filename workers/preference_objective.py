"""From the scores of responses to the scalar a rank back-propagates: pairs, labels, or a loss by its derivatives.

Weights are shares of the *global* batch's objective, so micro-batches and ranks only ever add up.
"""

from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor

from algorithms.maths.critique_reward_loss import critique_pair_loss
from algorithms.maths.kto import kto_loss
from algorithms.maths.preference_losses import PairLoss, bradley_terry_loss, dpo_loss
from algorithms.records import LabelTerms, LinearTerms, PairTerms, PreferenceGroup, RewardTerms, Sequence
from workers.objectives import LossSpec, UpdateStats


def preference_objective(
    groups: Seq[PreferenceGroup],
    spec: LossSpec,
    stats: UpdateStats,
    *,
    logprobs: Seq[Tensor] = (),
    rewards: Seq[Tensor] = (),
) -> Tensor:
    """Sum of weighted losses over what the policy thinks of responses, less what the reference thinks.

    Args:
        stats: Added to.
        logprobs: For every sequence of every group those of its response tokens, float32 ``[L_i]``, nats; none from a
            model without a language-model head.
        rewards: For every sequence of every group its reward, ``[1]``; none from a model without a scalar head.
    """
    losses, start = [], 0
    for group in groups:
        own = slice(start, start + len(group.sequences))
        start = own.stop
        scores = _scores(group, (rewards or logprobs)[own])
        # The difference to the reference is small beside the sums: in float64 it keeps its digits.
        ratios = scores - torch.from_numpy(np.array(group.ref_scores)).to(scores)
        loss = _group_loss(group, ratios, spec, stats)
        if group.imitation:
            imitation = _imitation(group, logprobs[own])
            stats.imitation_loss += float(imitation.detach())
            loss = loss + imitation
        losses.append(loss)
    loss = torch.stack(losses)
    finite = torch.isfinite(loss).tolist()
    stats.nonfinite += tuple(g.uid for g, ok in zip(groups, finite, strict=True) if not ok)
    stats.loss += float(loss.detach().sum())
    return loss.sum()


def _scores(group: PreferenceGroup, pieces: Seq[Tensor]) -> Tensor:
    """float64 ``[S]``."""
    if not group.score_weights:
        return torch.cat([pieces[i] for i in group.score_of]).double()
    return torch.stack(
        [
            _weighted(group.sequences[i], weights, pieces[i])
            for i, weights in zip(group.score_of, group.score_weights, strict=True)
        ]
    )


def _imitation(group: PreferenceGroup, logprobs: Seq[Tensor]) -> Tensor:
    terms = zip(group.sequences, group.imitation, logprobs, strict=True)
    return -torch.stack([_weighted(s, weights, piece) for s, weights, piece in terms]).sum()


def _weighted(sequence: Sequence, weights: np.ndarray, logprobs: Tensor) -> Tensor:
    of_response = torch.from_numpy(np.array(weights[sequence.prompt_len :], dtype=np.float64)).to(logprobs.device)
    return (logprobs.double() * of_response).sum()


def _group_loss(group: PreferenceGroup, ratios: Tensor, spec: LossSpec, stats: UpdateStats) -> Tensor:
    match group.terms:
        case PairTerms() as terms:
            result = _pair_loss(terms, ratios, spec)
            _count_pairs(result, stats)
            return (result.loss * torch.from_numpy(np.array(terms.weights)).to(ratios)).sum()
        case LabelTerms() as terms:
            desirable = torch.from_numpy(np.array(terms.desirable)).to(ratios.device)
            losses, rewards = kto_loss(
                ratios,
                desirable,
                baseline=terms.baseline,
                beta=terms.beta,
                # The weights of the two kinds are already part of each score's share.
                desirable_weight=1.0,
                undesirable_weight=1.0,
            )
            stats.num_chosen += int(desirable.sum())
            stats.num_rejected += int((~desirable).sum())
            stats.chosen_reward_sum += float(rewards[desirable].sum())
            stats.rejected_reward_sum += float(rewards[~desirable].sum())
            return (losses * torch.from_numpy(np.array(terms.weights)).to(ratios)).sum()
        case RewardTerms() as terms:
            return _reward_loss(terms, ratios, stats)
        case LinearTerms() as terms:
            coefficients = torch.from_numpy(np.array(terms.coefficients)).to(ratios)
            return (ratios * coefficients).sum() + terms.constant


def _reward_loss(terms: RewardTerms, rewards: Tensor, stats: UpdateStats) -> Tensor:
    chosen, rejected = (rewards[torch.from_numpy(np.array(side)).to(rewards.device)] for side in terms.pairs.T)
    is_tie = torch.from_numpy(np.array(terms.is_tie)).to(rewards.device)
    result = critique_pair_loss(
        chosen,
        rejected,
        is_tie,
        preference_weight=terms.preference_weight,
        tie_weight=terms.tie_weight,
        centre_weight=terms.centre_weight,
    )
    _count_pairs(result, stats, where=~is_tie)
    return (result.loss * torch.from_numpy(np.array(terms.weights)).to(rewards)).sum()


def _pair_loss(terms: PairTerms, ratios: Tensor, spec: LossSpec) -> PairLoss:
    chosen, rejected = (ratios[torch.from_numpy(np.array(side)).to(ratios.device)] for side in terms.pairs.T)
    if spec.kind == "bradley_terry":
        return bradley_terry_loss(chosen, rejected)
    betas = torch.from_numpy(np.array(terms.betas)).to(ratios)
    return dpo_loss(chosen, rejected, kind=spec.pair_kind, beta=betas, label_smoothing=spec.label_smoothing)


def _count_pairs(result: PairLoss, stats: UpdateStats, *, where: Tensor | None = None) -> None:
    """Add to the sums over pairs, of which ``where`` counts some."""
    counted = torch.ones_like(result.correct) if where is None else where
    count = int(counted.sum())
    stats.num_pairs += count
    stats.num_chosen += count
    stats.num_rejected += count
    stats.margin_sum += float(result.margin[counted].sum())
    stats.num_correct += int(result.correct[counted].sum())
    stats.chosen_reward_sum += float(result.chosen_rewards[counted].sum())
    stats.rejected_reward_sum += float(result.rejected_rewards[counted].sum())
