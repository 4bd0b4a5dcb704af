"""One offline step as a metric row; names as in docs/metrics.md."""

import hashlib
from collections.abc import Sequence

import numpy as np

from algorithms.records import Example, PreferenceGroup
from orchestrator.training.held_out import pair_margins


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
