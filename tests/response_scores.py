"""Scores of whole rows of responses, by the functions that score each response in training."""

import numpy as np
from torch import Tensor

from algorithms.groups import PairGroup, response_weights
from algorithms.maths.preference_losses import Reduction, score_weights, weighted_scores
from algorithms.preference import Preference
from algorithms.records import Sequence


def response_scores(logprobs: Tensor, mask: Tensor, *, reduction: Reduction) -> Tensor:
    """Log-prob of each row's response, or its mean per token, in the precision of the log-probs."""
    return weighted_scores(logprobs, score_weights(mask, reduction=reduction)).to(logprobs.dtype)


def imitation(logprobs: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of rows, each token of one weighed alike."""
    return -weighted_scores(logprobs, mask.double() * weights[:, None]).sum().to(logprobs.dtype)


def row_groups(
    algorithm: Preference, mask: Tensor, reference: Tensor, betas: Tensor, shares: Tensor, *, alpha: float = 1.0
) -> list[PairGroup]:
    """A step of one group: the first half of the rows, which is imitated, is preferred to the second.

    Args:
        reference: Its scores of the rows.
        shares: What each token of a chosen row counts in the cross-entropy.
        alpha: What all pairs count together.
    """
    half, lengths = len(mask) // 2, mask.sum(dim=1).tolist()
    sequences = tuple(
        Sequence(uid="rows", sample_index=i, input_ids=np.arange(n), prompt_len=0, media=())
        for i, n in enumerate(lengths)
    )
    weighed = [*shares.tolist(), *[0.0] * half]
    return [
        PairGroup(
            sequences=sequences,
            score_of=np.arange(2 * half),
            score_weights=tuple(response_weights(s, algorithm.reduction) for s in sequences),
            ref_scores=reference.double().numpy(),
            imitation=tuple(np.full(n, weight) for n, weight in zip(lengths, weighed, strict=True)),
            pairs=np.stack([np.arange(half), np.arange(half) + half], axis=1),
            weights=np.full(half, alpha / half),
            betas=betas.double().numpy(),
        )
    ]
