"""Relations that hold for every batch, between loss maps, guards and aggregation."""

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from algorithms.maths.advantages import filter_advantages
from algorithms.maths.aggregation import Aggregation, token_weights, weighted
from algorithms.maths.importance import CorrectionMode, correction_weights
from algorithms.maths.logprobs import KlEstimator, kl_estimate, logprob_mismatch, token_logprobs
from algorithms.maths.policy_losses import PolicyLoss, ppo_clip_loss_map, sft_loss_map
from algorithms.policy_gradient import AlgorithmSection
from algorithms.reinforce_pp import ReinforcePp
from algorithms.stable_reinforce import StableReinforce
from tests.property.batches import POISON, Batch, batches, poisoned, row_splits

MODES = get_args(Aggregation)
STABLE, PLAIN = (
    AlgorithmSection(**{name.removeprefix("algorithm."): value for name, value in kind.defaults.items()})
    for kind in (StableReinforce, ReinforcePp)
)


def _loss_map(batch: Batch, logprobs: Tensor, spec: AlgorithmSection, rows: Tensor | slice = slice(None)) -> PolicyLoss:
    return ppo_clip_loss_map(
        logprobs[rows] - batch.old_logprobs[rows],
        batch.advantages[rows],
        batch.mask[rows],
        clip_low=spec.clip_low,
        clip_high=spec.clip_high,
        preclip_min=spec.preclip_min,
        preclip_max=spec.preclip_max,
    )


def _correction(
    old: Tensor, rollout: Tensor, mask: Tensor, mode: CorrectionMode, least: float | None = None, most: float = 2.0
) -> Tensor:
    """Of rows that stand one behind the other."""
    old, rollout, where = (values.reshape(1, -1) for values in (old, rollout, mask))
    lengths = [mask.shape[1]] * len(mask)
    weights = correction_weights(old, rollout, where, lengths, mode=mode, minimum=least, maximum=most)
    return weights.reshape(mask.shape)


def _weights(batch: Batch, mode: Aggregation, rows: Tensor | slice = slice(None)) -> Tensor:
    return token_weights(
        batch.mask[rows],
        mode=mode,
        global_num_sequences=batch.num_sequences,
        global_num_tokens=batch.num_tokens,
        max_tokens=8,
    )


def _loss_and_gradient(batch: Batch, spec: AlgorithmSection, mode: Aggregation) -> tuple[Tensor, Tensor]:
    logprobs = batch.logprobs.clone().requires_grad_()
    loss = weighted(_loss_map(batch, logprobs, spec).loss, _weights(batch, mode)).sum()
    return loss.detach(), torch.autograd.grad(loss, logprobs)[0]


def _assert_same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
def test_splitting_the_batch_over_ranks_or_accumulation_never_changes_the_objective(
    mode: Aggregation, data: st.DataObject
) -> None:
    batch = data.draw(batches())
    logprobs = batch.logprobs.clone().requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for rows in data.draw(row_splits(len(batch.mask))):
        loss = loss + weighted(_loss_map(batch, logprobs, STABLE, rows).loss, _weights(batch, mode, rows)).sum()
    (gradient,) = torch.autograd.grad(loss, logprobs)
    _assert_same((loss.detach(), gradient), _loss_and_gradient(batch, STABLE, mode))


@pytest.mark.parametrize("mode", MODES)
@given(batch=batches(), left=st.integers(0, 2), right=st.integers(0, 2), poison=st.sampled_from(POISON))
def test_padding_on_either_side_never_changes_the_objective(
    mode: Aggregation, batch: Batch, left: int, right: int, poison: float
) -> None:
    def pad(values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values, (left, right), value=poison)

    padded = Batch(
        pad(batch.logprobs),
        pad(batch.old_logprobs),
        pad(batch.ref_logprobs),
        pad(batch.advantages),
        torch.nn.functional.pad(batch.mask, (left, right), value=False),
    )
    loss, gradient = _loss_and_gradient(padded, STABLE, mode)
    inner = gradient[:, left : gradient.shape[1] - right]
    _assert_same((loss, inner), _loss_and_gradient(batch, STABLE, mode))
    assert gradient.count_nonzero() == inner.count_nonzero()


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("spec", [STABLE, PLAIN], ids=["stable_reinforce", "reinforce_pp"])
@given(batch=batches())
def test_poison_behind_the_mask_reaches_neither_loss_nor_gradient(
    spec: AlgorithmSection, poison: float, batch: Batch
) -> None:
    mask = batch.mask
    bad = Batch(
        poisoned(batch.logprobs, mask, poison),
        poisoned(batch.old_logprobs, mask, poison),
        poisoned(batch.ref_logprobs, mask, poison),
        poisoned(batch.advantages, mask, poison),
        mask,
    )
    found, clean = (_loss_and_gradient(b, spec, "seq-mean-token-mean") for b in (bad, batch))
    assert torch.isfinite(found[1]).all()
    _assert_same(found, clean)


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("estimator", get_args(KlEstimator))
@given(batch=batches())
def test_poison_behind_the_mask_reaches_neither_kl_nor_its_gradient(
    estimator: KlEstimator, poison: float, batch: Batch
) -> None:
    logprobs = poisoned(batch.logprobs, batch.mask, poison).requires_grad_()
    ref = poisoned(batch.ref_logprobs, batch.mask, poison)
    kl = kl_estimate(logprobs, ref, batch.mask, estimator=estimator)
    (gradient,) = torch.autograd.grad(kl.sum(), logprobs)
    assert torch.equal(kl, kl_estimate(batch.logprobs, batch.ref_logprobs, batch.mask, estimator=estimator))
    assert torch.isfinite(gradient).all()
    assert not gradient[~batch.mask].any()


@pytest.mark.parametrize("poison", POISON)
@given(batch=batches())
def test_poison_behind_the_mask_reaches_neither_sft_loss_nor_engine_correction(poison: float, batch: Batch) -> None:
    logprobs = poisoned(batch.logprobs, batch.mask, poison).requires_grad_()
    rollout = poisoned(batch.old_logprobs, batch.mask, poison)
    loss = sft_loss_map(logprobs, batch.mask)
    (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
    assert torch.equal(gradient, -batch.mask.double())
    for mode in get_args(CorrectionMode):
        weights = _correction(logprobs, rollout, batch.mask, mode)
        assert torch.equal(weights, _correction(batch.logprobs, batch.old_logprobs, batch.mask, mode))
    mismatch = logprob_mismatch(logprobs, rollout, batch.mask)
    assert mismatch == logprob_mismatch(batch.logprobs, batch.old_logprobs, batch.mask)


@pytest.mark.parametrize("spec", [STABLE, PLAIN], ids=["stable_reinforce", "reinforce_pp"])
@given(batch=batches(max_log_ratio=0))
def test_ratio_one_gives_the_reinforce_gradient(spec: AlgorithmSection, batch: Batch) -> None:
    loss, gradient = _loss_and_gradient(batch, spec, "token-mean")
    weighted = torch.where(batch.mask, -batch.advantages, 0.0) / batch.num_tokens
    _assert_same((loss, gradient), (weighted.sum(), weighted))


@given(batch=batches())
def test_k2_and_k3_are_never_negative_and_k1_changes_sign_with_the_roles(batch: Batch) -> None:
    forward = {
        name: kl_estimate(batch.logprobs, batch.ref_logprobs, batch.mask, estimator=name) for name in ("k1", "k2", "k3")
    }
    backward = kl_estimate(batch.ref_logprobs, batch.logprobs, batch.mask, estimator="k1")
    assert (forward["k2"] >= 0).all()
    assert (forward["k3"] >= 0).all()
    torch.testing.assert_close(forward["k1"], -backward, rtol=0, atol=0)


@given(nearly=st.floats(-(2.0**-6), 2.0**-6, width=32))
def test_k3_is_not_negative_even_where_float32_cancels(nearly: float) -> None:
    logprobs = torch.tensor([[0.0, nearly]], dtype=torch.float32)
    mask = torch.tensor([[False, True]])
    assert kl_estimate(logprobs, torch.zeros_like(logprobs), mask, estimator="k3")[0, 1] >= 0


@given(
    logits=st.lists(st.lists(st.integers(-6, 6), min_size=4, max_size=4), min_size=4, max_size=4),
    shift=st.integers(-50, 50),
)
def test_logprobs_form_a_distribution_that_no_constant_changes(logits: list[list[int]], shift: int) -> None:
    row = torch.tensor(logits[0], dtype=torch.float64)
    every, *_ = token_logprobs(row.expand(4, 4), torch.arange(4))
    torch.testing.assert_close(every.exp().sum(), torch.ones((), dtype=torch.float64))
    shifted, *_ = token_logprobs(row.expand(4, 4) + shift, torch.arange(4))
    torch.testing.assert_close(shifted, every, rtol=0, atol=1e-12)


@given(batch=batches())
def test_reinforce_pp_is_the_special_case_in_which_no_guard_acts(batch: Batch) -> None:
    # Log-ratios stay within ±3 < ln 1000, and the filter is given nothing above three sigmas.
    z = batch.advantages.clamp(-3, 3)
    guarded = filter_advantages(z, batch.mask, rule=STABLE.adv_filter, raw_mean=0.0)
    plain = filter_advantages(z, batch.mask, rule=PLAIN.adv_filter, raw_mean=0.0)
    assert torch.equal(guarded.advantages, plain.advantages)
    for one, other in zip(
        _loss_and_gradient(batch, STABLE, STABLE.aggregation),
        _loss_and_gradient(batch, PLAIN, PLAIN.aggregation),
        strict=True,
    ):
        assert torch.equal(one, other)


@given(batch=batches(max_log_ratio=60))
def test_outside_the_pre_clip_bounds_the_gradient_is_zero_and_the_loss_bounded(batch: Batch) -> None:
    logprobs = batch.logprobs.clone().requires_grad_()
    result = _loss_map(batch, logprobs, STABLE)
    (gradient,) = torch.autograd.grad(result.loss.sum(), logprobs)
    log_ratio = batch.logprobs - batch.old_logprobs
    assert torch.equal(result.preclip_hit, (log_ratio.abs() > 6.907755278982137) & batch.mask)
    assert not gradient[result.preclip_hit].any()
    assert (result.loss.abs() <= 1000.0000001 * batch.advantages.abs()).all()
    inside = ~result.preclip_hit & batch.mask & (batch.advantages < 0) & (log_ratio > 0)
    assert (gradient[inside] > 0).all()


@given(batch=batches())
def test_clipping_only_ever_makes_the_loss_more_pessimistic(batch: Batch) -> None:
    result = _loss_map(batch, batch.logprobs, PLAIN)
    unclipped = torch.where(batch.mask, -result.ratio * batch.advantages, 0.0)
    assert (result.loss >= unclipped).all()
    assert torch.equal(result.loss > unclipped, result.clip_hit)


@pytest.mark.parametrize("mode", get_args(CorrectionMode))
@given(batch=batches(), least=st.floats(0.1, 0.9), most=st.floats(1.1, 4.0))
def test_importance_weights_stay_within_their_bounds_or_are_zero_and_are_one_without_a_gap(
    mode: CorrectionMode, batch: Batch, least: float, most: float
) -> None:
    weights = _correction(batch.logprobs, batch.old_logprobs, batch.mask, mode, least, most)
    assert ((weights == 0) | ((weights >= least) & (weights <= most))).all()
    assert not weights[~batch.mask].any()
    if mode.endswith("truncate"):
        assert weights[batch.mask].all()
    agreeing = _correction(batch.logprobs, batch.logprobs, batch.mask, mode, least, most)
    assert torch.equal(agreeing, batch.mask.double())
