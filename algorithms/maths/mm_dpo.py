"""MM-DPO: DPO in which each pair has its own β, and the chosen responses are imitated as well.

``pair_betas`` makes the β of the pairs, ``aggregation.response_weights`` the weights of the imitated responses.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from algorithms.maths.aggregation import weighted_nll
from algorithms.maths.preference_losses import PairLoss, dpo_loss


@dataclass(frozen=True, slots=True)
class MmDpoLoss:
    """The objective of the pairs and responses given, and its two parts."""

    loss: Tensor
    """Scalar, with gradient: Σ weight · pair loss + γ · ``sft``."""
    pairs: PairLoss
    """Not weighted; its rewards use the β of each pair, where the released code logs those of the base β."""
    sft: Tensor
    """Scalar, detached, nats: the cross-entropy before γ."""


def mm_dpo_loss(
    chosen_log_ratios: Float[Tensor, " B"],
    rejected_log_ratios: Float[Tensor, " B"],
    logprobs: Float[Tensor, " S"],
    *,
    betas: Float[Tensor, " B"],
    pair_weights: Float[Tensor, " B"],
    sft_weights: Float[Tensor, " S"],
    sft_coef: float,
    label_smoothing: float = 0.0,
) -> MmDpoLoss:
    """−Σ weight · log σ(β z) − γ Σ weight · log π(y), z the chosen less the rejected log-ratio.

    The weights are shares of the global batch, so its parts add up to the objective.

    Args:
        logprobs: log π(y) of responses, each the sum over its tokens, nats; what is not chosen has weight 0.
        betas: 1/nats, positive.
        pair_weights: Each pair's share of the global batch, 1 / pairs for a mean.
        sft_weights: From ``response_weights``, each response as often as it is chosen: "token-mean" is the released
            cross-entropy, "seq-mean-token-mean" gives a short response the say of a long one.
        sft_coef: γ, not negative.
        label_smoothing: see ``dpo_loss``: 0 is none. The released code means by 1 what is 0 here.
    Raises:
        ValueError: γ negative or not finite, or what ``dpo_loss`` refuses.
    Source: MM-RLHF, section 4.2, https://arxiv.org/abs/2502.10391; dpo_trainer.py:820-822, 899-910, 1032-1038
    """
    if not 0.0 <= sft_coef < math.inf:
        raise ValueError(f"sft_coef = {sft_coef} must be finite and not negative")
    pairs = dpo_loss(
        chosen_log_ratios, rejected_log_ratios, kind="sigmoid", beta=betas, label_smoothing=label_smoothing
    )
    sft = weighted_nll(logprobs, sft_weights)
    loss = (pairs.loss * pair_weights.to(pairs.loss)).sum() + sft_coef * sft
    return MmDpoLoss(loss=loss, pairs=pairs, sft=sft.detach())
