"""Loss of a critique reward model: scores of pairs, ties among them, beside the language-model loss of critiques.

    L = w_f [mean over preferences of −log σ(r_c − r_r − m) + w_t · mean over ties of (r_c − r_r)²]
        + c · mean over pairs of (r_c + r_r)² + w_q · cross-entropy of the critiques

The last term is ``aggregation.weighted_nll`` of the critiques' log-probs, times w_q; a response's critique counts once
where its ``repeats`` are 1, and as often as in the released code where they are the pairs it stands in.
"""

import math

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.maths.masking import keep
from algorithms.maths.preference_losses import PairLoss


def critique_pair_loss(
    chosen_scores: Float[Tensor, " B"],
    rejected_scores: Float[Tensor, " B"],
    is_tie: Bool[Tensor, " B"],
    *,
    preference_weight: float,
    tie_weight: float,
    centre_weight: float,
    margins: Float[Tensor, " B"] | None = None,
) -> PairLoss:
    """Loss of each pair, to be weighted by its share of the global batch and summed; a weight of 0 drops its term.

    A preference: preference_weight · −log σ(r_c − r_r − m); a tie: tie_weight · (r_c − r_r)²; to either is added
    centre_weight · (r_c + r_r)², which alone holds the scores near 0. ``correct`` says nothing of a tie.

    Args:
        chosen_scores: Rewards of the chosen responses; of a tie, those of either one.
        is_tie: The annotators rank both responses alike.
        preference_weight: With ``tie_weight`` from ``mean_weights``, so that both kinds are averaged by themselves.
        margins: m, reward units, by which a chosen response must lead; not read for ties. None asks for none.
    Raises:
        ValueError: a weight negative or not finite.
    Source: MM-RLHF, reward_trainer.py:255-286, the section 3.2 of https://arxiv.org/abs/2502.10391 without its tie
        and centring terms
    """
    weights = {"preference_weight": preference_weight, "tie_weight": tie_weight, "centre_weight": centre_weight}
    for name, value in weights.items():
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{name} = {value} must be finite and not negative")
    gap = chosen_scores - rejected_scores
    preference = keep(-logsigmoid(gap if margins is None else gap - margins), ~is_tie)
    tie = keep(gap, is_tie).square()
    centre = (chosen_scores + rejected_scores).square()
    return PairLoss(
        loss=preference_weight * preference + tie_weight * tie + centre_weight * centre,
        chosen_rewards=chosen_scores.detach(),
        rejected_rewards=rejected_scores.detach(),
    )


def mean_weights(
    preference_share: float, tie_share: float, *, score_weight: float, tie_weight: float
) -> tuple[float, float]:
    """``(preference_weight, tie_weight)`` that make a weighted sum over all pairs a mean over each kind of pair.

    Args:
        preference_share: Sum of the shares of the global batch's preferences; with equal shares, their number.
        tie_share: The same of its ties.
        score_weight: w_f.
        tie_weight: w_t.
    Raises:
        ValueError: a share negative or not finite, or both 0.
    """
    total = preference_share + tie_share
    if not (min(preference_share, tie_share) >= 0.0 and 0.0 < total < math.inf):
        raise ValueError(
            f"shares of preferences and ties ({preference_share}, {tie_share}) must be finite, not negative, "
            "and not both 0"
        )
    return (
        score_weight * total / preference_share if preference_share else 0.0,
        score_weight * tie_weight * total / tie_share if tie_share else 0.0,
    )
