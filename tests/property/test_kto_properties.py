"""Relations that hold for every labelled response, and for the batch KTO compares it with."""

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from algorithms.maths.kto import kto_baseline, kto_loss, kto_weight_warning
from tests.property.batches import log_ratios, row_splits

BETAS = st.floats(0.01, 4.0)
WEIGHTS = st.floats(0.0, 4.0)
BASE = {"baseline": 0.5, "beta": 0.5, "desirable_weight": 1.0, "undesirable_weight": 1.0}


@st.composite
def _labelled(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    ratios, _ = draw(log_ratios())
    return ratios, torch.tensor(draw(st.lists(st.booleans(), min_size=len(ratios), max_size=len(ratios))))


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@given(labelled=_labelled(), desirable_weight=WEIGHTS, undesirable_weight=WEIGHTS)
def test_kto_of_a_policy_that_is_its_reference_pays_half_the_weight(
    labelled: tuple[Tensor, Tensor], desirable_weight: float, undesirable_weight: float
) -> None:
    ratios, desirable = labelled
    weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    loss, rewards = kto_loss(torch.zeros_like(ratios), desirable, **(BASE | {"baseline": 0.0} | weights))
    desired, undesired = torch.tensor([desirable_weight, undesirable_weight], dtype=torch.float64)
    _close(loss, 0.5 * torch.where(desirable, desired, undesired))
    assert not rewards.any()


@given(labelled=_labelled(), weight=WEIGHTS)
def test_each_kto_weight_scales_the_responses_of_its_own_label(labelled: tuple[Tensor, Tensor], weight: float) -> None:
    ratios, desirable = labelled
    plain, _ = kto_loss(ratios, desirable, **BASE)
    liked, _ = kto_loss(ratios, desirable, **(BASE | {"desirable_weight": weight}))
    disliked, _ = kto_loss(ratios, desirable, **(BASE | {"undesirable_weight": weight}))
    _close(liked, torch.where(desirable, weight * plain, plain))
    _close(disliked, torch.where(desirable, plain, weight * plain))


@given(labelled=_labelled())
def test_kto_gradient_raises_what_is_desirable_and_lowers_the_rest(labelled: tuple[Tensor, Tensor]) -> None:
    ratios, desirable = labelled
    ratios.requires_grad_()
    loss, rewards = kto_loss(ratios, desirable, **BASE)
    (gradient,) = torch.autograd.grad(loss.sum(), ratios)
    assert torch.equal(gradient < 0, desirable)
    assert (gradient != 0).all()
    assert not rewards.requires_grad


@given(labelled=_labelled(), baseline=st.floats(0.0, 16.0))
def test_the_two_labels_of_one_response_share_its_weight(labelled: tuple[Tensor, Tensor], baseline: float) -> None:
    ratios, desirable = labelled
    numbers = BASE | {"baseline": baseline}
    loss, _ = kto_loss(ratios, desirable, **numbers)
    opposite, _ = kto_loss(ratios, ~desirable, **numbers)
    _close(loss + opposite, torch.ones_like(ratios))


@given(labelled=_labelled(), beta=BETAS)
def test_apo_zero_is_kto_against_no_baseline(labelled: tuple[Tensor, Tensor], beta: float) -> None:
    ratios, desirable = labelled
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
    loss, _ = kto_loss(ratios, desirable, baseline=0.0, beta=beta, **weights)
    sigma = (beta * ratios).sigmoid()
    _close(loss, torch.where(desirable, 1.5 * (1 - sigma), 0.5 * sigma))


@given(ratios=log_ratios(), data=st.data())
def test_the_number_of_ranks_cannot_change_the_baseline(ratios: tuple[Tensor, Tensor], data: st.DataObject) -> None:
    values = ratios[0]
    shards = [values[rows] for rows in data.draw(row_splits(len(values)))]
    total, count = sum(shard.sum().item() for shard in shards), sum(map(len, shards))
    assert kto_baseline(total, count) == max(0.0, values.sum().item() / len(values))


@given(counts=st.tuples(st.integers(1, 999), st.integers(1, 999)), weight=st.floats(0.1, 8.0))
def test_weights_are_warned_of_exactly_outside_the_bounds_and_the_advice_is_good(
    counts: tuple[int, int], weight: float
) -> None:
    ratio = weight * counts[0] / counts[1]
    assume(min(abs(ratio - 1), abs(ratio - 4 / 3)) > 1e-6)
    warned = kto_weight_warning(*counts, desirable_weight=weight, undesirable_weight=1.0)
    assert (warned is None) == (1 <= ratio <= 4 / 3)
    advised = 7 / 6 * counts[1] / counts[0]
    assert kto_weight_warning(*counts, desirable_weight=advised, undesirable_weight=1.0) is None
