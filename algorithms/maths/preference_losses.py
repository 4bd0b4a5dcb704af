"""Losses of pairs: a chosen and a rejected response, or their scalar scores. One loss a pair; the caller averages.

A policy's opinion of a response is its log-ratio log π(y|x) − log π_ref(y|x): two ``weighted_scores``
subtracted. Without a reference the log-ratio is log π(y|x) itself.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.maths.masking import keep

Reduction = Literal["sum", "mean"]
DpoKind = Literal["sigmoid", "hinge", "ipo_sum", "ipo_mean"]

DPO_REDUCTION: dict[DpoKind, Reduction] = {"sigmoid": "sum", "hinge": "sum", "ipo_sum": "sum", "ipo_mean": "mean"}
"""How a response's token log-probs are reduced before each kind of ``dpo_loss``."""


@dataclass(frozen=True, slots=True)
class PairLoss:
    """Loss of every pair and the rewards it implies, each ``[B]``."""

    loss: Tensor
    """With gradient, not averaged."""
    chosen_rewards: Tensor
    """Detached: β times the log-ratio, or the score of a reward model."""
    rejected_rewards: Tensor
    """Detached, in the same unit."""

    @property
    def margin(self) -> Tensor:
        """Chosen minus rejected reward."""
        return self.chosen_rewards - self.rejected_rewards

    @property
    def correct(self) -> Tensor:
        """bool: the chosen response has the greater reward; a tie is no success. Its mean is the accuracy."""
        return self.chosen_rewards > self.rejected_rewards


def score_weights(mask: Bool[Tensor, "B T"], *, reduction: Reduction) -> Float[Tensor, "B T"]:
    """What each token's log-prob counts in the score of its response, float64; 0 for a row without counted tokens.

    Source: VL-RLHF, trainer.py:149-188, without its token diff; there the mean of an empty row is NaN.
    """
    weights = mask.double()
    return weights if reduction == "sum" else weights / weights.sum(dim=1, keepdim=True).clamp(min=1)


def weighted_scores(logprobs: Float[Tensor, "B T"], weights: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Σ weight · log-prob of each response, nats, in float64; what has no weight does not matter, NaN included."""
    return (keep(logprobs.double(), weights != 0) * weights.double()).sum(dim=1)


def dpo_loss(
    chosen_log_ratios: Float[Tensor, " B"],
    rejected_log_ratios: Float[Tensor, " B"],
    *,
    kind: DpoKind,
    beta: float | Float[Tensor, " B"],
    label_smoothing: float = 0.0,
) -> PairLoss:
    """Loss of the margin δ = chosen − rejected log-ratio.

    sigmoid: −(1−ε) log σ(βδ) − ε log σ(−βδ); hinge: max(0, 1 − βδ); ipo_sum and ipo_mean: (δ − 1/(2β))². The two
    IPOs differ in what the caller must pass, see ``DPO_REDUCTION``: β of ``ipo_mean`` is in 1/nats per token.

    Args:
        beta: 1/nats, positive; a tensor gives every pair its own and gets no gradient from here.
        label_smoothing: ε, the probability that a pair's labels are swapped (conservative DPO); sigmoid only.
    Raises:
        ValueError: β not positive and finite, ε outside [0, 0.5], or ε > 0 with another kind than sigmoid.
    Source: Rafailov et al. 2023, eq. 7, https://arxiv.org/abs/2305.18290; ε: Mitchell 2023, "A note on DPO with noisy
        preferences"; hinge: Zhao et al. 2023, https://arxiv.org/abs/2305.10425; ipo: Azar et al. 2023, eq. 17,
        https://arxiv.org/abs/2310.12036; as VL-RLHF, trainer.py:244-301
    """
    _check_smoothing(label_smoothing, kind)
    beta = _checked(beta)
    delta = chosen_log_ratios - rejected_log_ratios
    if kind == "sigmoid":
        loss = -(1.0 - label_smoothing) * logsigmoid(beta * delta) - label_smoothing * logsigmoid(-beta * delta)
    elif kind == "hinge":
        loss = (1.0 - beta * delta).relu()
    elif kind in ("ipo_sum", "ipo_mean"):
        loss = (delta - 0.5 / beta).square()
    else:
        raise ValueError(f"kind = {kind!r} must be one of {sorted(DPO_REDUCTION)}")
    return pair_loss(loss, chosen_log_ratios, rejected_log_ratios, beta)


def kto_pair_loss(
    chosen_log_ratios: Float[Tensor, " B"],
    rejected_log_ratios: Float[Tensor, " B"],
    *,
    beta: float | Float[Tensor, " B"],
) -> PairLoss:
    """KTO over pairs as VL-RLHF has it: ½ [1 − σ(β (a − K_r))] + ½ [1 − σ(β (K_c − b))] with a, b the log-ratios.

    K_c = max(0, mean a), K_r = max(0, mean b) over the rows *given*, so how a batch is split changes the objective,
    and gradient flows through both. ``kto.kto_loss`` has neither property; this is for comparison with that code.

    Raises:
        ValueError: β not positive and finite.
    Source: VL-RLHF, trainer.py:270-282; its 2B terms are averaged to one a pair here
    """
    beta = _checked(beta)
    chosen_kl = chosen_log_ratios.mean().clamp(min=0)
    rejected_kl = rejected_log_ratios.mean().clamp(min=0)
    # 1 − σ(x) is written σ(−x), which keeps its digits where σ(x) rounds to 1.
    chosen_terms = (-beta * (chosen_log_ratios - rejected_kl)).sigmoid()
    rejected_terms = (-beta * (chosen_kl - rejected_log_ratios)).sigmoid()
    return pair_loss(0.5 * (chosen_terms + rejected_terms), chosen_log_ratios, rejected_log_ratios, beta)


def bco_loss(
    chosen_log_ratios: Float[Tensor, " B"],
    rejected_log_ratios: Float[Tensor, " B"],
    *,
    beta: float | Float[Tensor, " B"],
    shift: float,
) -> PairLoss:
    """Each response by itself against a bound: −log σ(β a − δ) − log σ(−(β b − δ)) with a, b the log-ratios.

    Args:
        shift: δ, reward units: what tells a good reward from a bad one.
    Raises:
        ValueError: β not positive and finite.
    Source: Jung et al. 2024, BCO, https://arxiv.org/abs/2404.04656; of pairs as MPO has it, Wang et al. 2024,
        section 3.2, https://arxiv.org/abs/2411.10442
    """
    beta = _checked(beta)
    loss = -logsigmoid(beta * chosen_log_ratios - shift) - logsigmoid(shift - beta * rejected_log_ratios)
    return pair_loss(loss, chosen_log_ratios, rejected_log_ratios, beta)


def bradley_terry_loss(chosen_scores: Float[Tensor, " B"], rejected_scores: Float[Tensor, " B"]) -> PairLoss:
    """Loss −log σ(r_c − r_r) of a scalar reward model's scores; they are also the rewards reported.

    Source: Ouyang et al. 2022, eq. 1, https://arxiv.org/abs/2203.02155
    """
    return pair_loss(-logsigmoid(chosen_scores - rejected_scores), chosen_scores, rejected_scores, 1.0)


def centring_sign(chosen_scores: Float[Tensor, " B"], rejected_scores: Float[Tensor, " B"]) -> float:
    """On which side of 0 the scores of a batch lie, on the mean over its pairs: 1, −1, or 0 where it is 0 or empty."""
    total = (chosen_scores + rejected_scores).detach().double().sum()
    return float(total.sign())


def centred_pair_loss(
    chosen_scores: Float[Tensor, " B"],
    rejected_scores: Float[Tensor, " B"],
    *,
    centre_weight: float,
    sign: float,
) -> PairLoss:
    """Loss −log σ(r_c − r_r) + w s (r_c + r_r) of each pair; with s the batch's sign its mean is the paper's.

    That is the mean of the first term + w |mean (r_c + r_r)|. All that couples the pairs of a batch is the sign of a
    mean: with that of the *whole* batch, from ``centring_sign``, value and gradient are the same however it is split.

    Args:
        centre_weight: w, 1/reward units.
        sign: s, 1, 0 or −1.
    Raises:
        ValueError: the weight negative or not finite, or another sign.
    Source: LLaVA-RLHF, reward_model.py:275-318, section 3.3 of https://arxiv.org/abs/2309.14525 for the first term
    """
    if not 0.0 <= centre_weight < float("inf"):
        raise ValueError(f"centre_weight = {centre_weight} must be finite and not negative")
    if sign not in (-1.0, 0.0, 1.0):
        raise ValueError(f"sign = {sign} must be -1, 0 or 1")
    ranked = -logsigmoid(chosen_scores - rejected_scores)
    loss = ranked + centre_weight * sign * (chosen_scores + rejected_scores)
    return pair_loss(loss, chosen_scores, rejected_scores, 1.0)


def pair_loss(loss: Tensor, chosen: Tensor, rejected: Tensor, beta: float | Tensor) -> PairLoss:
    """A loss of pairs with the rewards that their log-ratios imply, β times these."""
    with torch.no_grad():
        return PairLoss(loss=loss, chosen_rewards=beta * chosen, rejected_rewards=beta * rejected)


def _checked(beta: float | Tensor) -> float | Tensor:
    """β, detached; refused unless all of it is positive and finite."""
    values = torch.as_tensor(beta)
    if not bool(((values > 0) & values.isfinite()).all()):
        raise ValueError(f"beta = {beta} must be positive and finite")
    return beta.detach() if isinstance(beta, Tensor) else beta


def _check_smoothing(label_smoothing: float, kind: DpoKind) -> None:
    if not 0.0 <= label_smoothing <= 0.5:
        raise ValueError(f"label_smoothing = {label_smoothing} must be in [0, 0.5]: above, the labels are inverted")
    if label_smoothing and kind != "sigmoid":
        raise ValueError(f"label_smoothing = {label_smoothing} has no meaning for {kind}, only for sigmoid")
