"""One offline step as a metric row; names as in docs/metrics.md."""

import hashlib
from collections.abc import Sequence

import numpy as np

from algorithms.records import Example, PreferenceGroup
from orchestrator.training.held_out import pair_margins
from workers.objectives import UpdateStats


def step_metrics(ranks: Sequence[UpdateStats]) -> dict[str, float]:
    """Figures of one optimizer step, taken or not, over all ranks; what a loss does not have is left out."""
    tokens, pairs = sum(r.num_tokens for r in ranks), sum(r.num_pairs for r in ranks)
    metrics = {
        "preference/num_pairs": float(pairs),
        "policy/loss": sum(r.loss for r in ranks),
        "policy/grad_norm": ranks[0].grad_norm,
        "policy/lr": ranks[0].lr,
    }
    if tokens:
        metrics["policy/entropy"] = sum(r.entropy_sum for r in ranks) / tokens
        metrics["policy/token_accuracy"] = sum(r.greedy_hits for r in ranks) / tokens
    if pairs:
        metrics["preference/accuracy"] = sum(r.num_correct for r in ranks) / pairs
        metrics["preference/margin"] = sum(r.margin_sum for r in ranks) / pairs
    if any(r.imitation_loss for r in ranks):
        metrics["policy/imitation_loss"] = sum(r.imitation_loss for r in ranks)
    chosen, rejected = sum(r.num_chosen for r in ranks), sum(r.num_rejected for r in ranks)
    if chosen:
        metrics["preference/chosen_reward"] = sum(r.chosen_reward_sum for r in ranks) / chosen
    if rejected:
        metrics["preference/rejected_reward"] = sum(r.rejected_reward_sum for r in ranks) / rejected
    return metrics


def margin_metrics(examples: Sequence[Example]) -> dict[str, float]:
    """What a reward model's margins make of a step's pairs; empty where every pair counts alike."""
    betas = [beta for e in examples for beta in e.betas]
    margins = np.array([margin for e in examples for margin in e.margins])
    if not betas:
        return {}
    metrics = {
        "beta/mean": float(np.mean(betas)),
        "beta/max": float(np.max(betas)),
        "data/dropped_pairs": float(sum(e.num_dropped for e in examples)),
    }
    if len(margins):
        metrics |= {"margin/mean": float(margins.mean()), "margin/negative_frac": float(np.mean(margins < 0))}
    return metrics


def batch_digest48(examples: Sequence[Example]) -> float:
    """48 bits, which fit a float exactly, of who is in a step and in which order: equal numbers, equal batches."""
    ids = [(s.uid, s.sample_index) for e in examples for s in e.sequences]
    return float(int(hashlib.sha256(repr(ids).encode()).hexdigest()[:12], 16))


def coupled_metrics(
    groups: Sequence[PreferenceGroup], ratios: Sequence[np.ndarray], *, beta: float
) -> dict[str, float]:
    """What workers cannot tell of a loss that the driver has differentiated for them."""
    margins = beta * np.concatenate([pair_margins(g, r) for g, r in zip(groups, ratios, strict=True)])
    return {
        "preference/num_pairs": float(len(margins)),
        "preference/accuracy": float(np.mean(margins > 0)),
        "preference/margin": float(np.mean(margins)),
    }
