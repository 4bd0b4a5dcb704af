"""Relations that hold for every pair of responses."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from algorithms.maths.preference_losses import (
    DPO_REDUCTION,
    DpoKind,
    PairLoss,
    bradley_terry_loss,
    dpo_loss,
    kto_pair_loss,
)
from tests.property.batches import Batch, batches, log_ratios, row_splits
from tests.response_scores import response_scores

KINDS: tuple[DpoKind, ...] = get_args(DpoKind)
BETAS = st.floats(0.01, 4.0)


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def _gradients(loss: Callable[[Tensor, Tensor], Tensor], chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    chosen, rejected = chosen.clone().requires_grad_(), rejected.clone().requires_grad_()
    first, second = torch.autograd.grad(loss(chosen, rejected).sum(), (chosen, rejected))
    return first, second


@given(batch=batches(), beta=BETAS, label_smoothing=st.floats(0.0, 0.5))
def test_a_policy_that_is_its_reference_pays_the_constant_of_its_loss(
    batch: Batch, beta: float, label_smoothing: float
) -> None:
    constants = {"sigmoid": math.log(2), "hinge": 1.0, "ipo_sum": 0.25 / beta**2, "ipo_mean": 0.25 / beta**2}
    for kind in KINDS:
        scores = response_scores(batch.logprobs, batch.mask, reduction=DPO_REDUCTION[kind])
        smoothing = label_smoothing if kind == "sigmoid" else 0.0
        none = scores - scores
        loss = dpo_loss(none, none, kind=kind, beta=beta, label_smoothing=smoothing).loss
        _close(loss, torch.full_like(loss, constants[kind]))
    none = torch.zeros(len(batch.mask), dtype=torch.float64)
    _close(kto_pair_loss(none, none, beta=beta).loss, none + 0.5)
    _close(bradley_terry_loss(none, none).loss, none + math.log(2))


@pytest.mark.parametrize("kind", KINDS)
@given(ratios=log_ratios(), beta=BETAS)
def test_exchanging_the_responses_negates_the_margin_and_the_gradients_oppose_each_other(
    kind: DpoKind, ratios: tuple[Tensor, Tensor], beta: float
) -> None:
    chosen, rejected = ratios
    result, exchanged = (dpo_loss(*pair, kind=kind, beta=beta) for pair in (ratios, ratios[::-1]))
    assert torch.equal(result.margin, -exchanged.margin)
    assert not (result.correct & exchanged.correct).any()
    first, second = _gradients(lambda c, r: dpo_loss(c, r, kind=kind, beta=beta).loss, chosen, rejected)
    assert torch.equal(first, -second)


@given(ratios=log_ratios(), beta=BETAS, label_smoothing=st.floats(0.0, 0.5))
def test_exchanging_the_responses_adds_the_margin_to_the_sigmoid_loss(
    ratios: tuple[Tensor, Tensor], beta: float, label_smoothing: float
) -> None:
    result, exchanged = (
        dpo_loss(*pair, kind="sigmoid", beta=beta, label_smoothing=label_smoothing) for pair in (ratios, ratios[::-1])
    )
    _close(exchanged.loss - result.loss, (1 - 2 * label_smoothing) * beta * (ratios[0] - ratios[1]))


@given(ratios=log_ratios(), beta=BETAS, label_smoothing=st.floats(0.0, 0.5))
def test_label_smoothing_mixes_the_losses_of_both_labellings(
    ratios: tuple[Tensor, Tensor], beta: float, label_smoothing: float
) -> None:
    smoothed = dpo_loss(*ratios, kind="sigmoid", beta=beta, label_smoothing=label_smoothing).loss
    plain, swapped = (dpo_loss(*pair, kind="sigmoid", beta=beta).loss for pair in (ratios, ratios[::-1]))
    _close(smoothed, (1 - label_smoothing) * plain + label_smoothing * swapped)


@given(ratios=log_ratios(), beta=BETAS)
def test_gradient_raises_the_chosen_response_until_the_loss_is_content(
    ratios: tuple[Tensor, Tensor], beta: float
) -> None:
    delta = ratios[0] - ratios[1]
    for kind in KINDS:
        chosen, _ = _gradients(lambda c, r, k=kind: dpo_loss(c, r, kind=k, beta=beta).loss, *ratios)
        if kind == "sigmoid":
            assert (chosen < 0).all()
        elif kind == "hinge":
            assert torch.equal(chosen < 0, beta * delta < 1)
            assert (chosen <= 0).all()
        else:
            # IPO has a target, and pulls back from beyond it.
            assert torch.equal(chosen.sign(), (delta - 0.5 / beta).sign())
    assert (_gradients(lambda c, r: bradley_terry_loss(c, r).loss, *ratios)[0] < 0).all()


@given(scores=log_ratios())
def test_bradley_terry_is_dpo_of_scores_with_beta_one(scores: tuple[Tensor, Tensor]) -> None:
    scored, preferred = bradley_terry_loss(*scores), dpo_loss(*scores, kind="sigmoid", beta=1.0)
    _close(scored.loss, preferred.loss)
    assert torch.equal(scored.margin, preferred.margin)


@given(ratios=log_ratios(), data=st.data())
def test_a_beta_of_its_own_is_what_each_pair_would_get_alone(
    ratios: tuple[Tensor, Tensor], data: st.DataObject
) -> None:
    rows = len(ratios[0])
    beta = torch.tensor(data.draw(st.lists(BETAS, min_size=rows, max_size=rows)), dtype=torch.float64)
    kind = data.draw(st.sampled_from(KINDS))
    whole = dpo_loss(*ratios, kind=kind, beta=beta.requires_grad_())
    assert not whole.loss.requires_grad
    for row in range(rows):
        pair = [side[row : row + 1] for side in ratios]
        alone = dpo_loss(pair[0], pair[1], kind=kind, beta=beta[row].item())
        for name in ("loss", "chosen_rewards", "rejected_rewards"):
            _close(getattr(whole, name)[row : row + 1], getattr(alone, name))


@pytest.mark.parametrize("kind", KINDS)
@given(ratios=log_ratios(), data=st.data())
def test_no_pair_knows_the_others(kind: DpoKind, ratios: tuple[Tensor, Tensor], data: st.DataObject) -> None:
    def loss(rows: Tensor | slice) -> PairLoss:
        return dpo_loss(ratios[0][rows], ratios[1][rows], kind=kind, beta=0.5)

    whole = loss(slice(None)).loss
    for rows in data.draw(row_splits(len(whole))):
        assert torch.equal(loss(rows).loss, whole[rows])


def test_pairs_of_kto_pair_do_know_each_other() -> None:
    chosen, rejected = torch.tensor([1.0, 5.0]), torch.tensor([2.0, -2.0])
    whole = kto_pair_loss(chosen, rejected, beta=0.1).loss
    assert whole[0] != kto_pair_loss(chosen[:1], rejected[:1], beta=0.1).loss[0]
