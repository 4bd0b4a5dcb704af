"""Relations that hold for every rollout with a critic: advantages, the critic's loss, whitening, the cost of the KL."""

import json
import math
from itertools import zip_longest

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from algorithms.maths.advantages import RewardPlacement, discounted_returns, place_terminal_reward
from algorithms.maths.aggregation import token_weights, weighted
from algorithms.maths.gae import gae
from algorithms.maths.kl_control import AdaptiveKl, FixedKl, KlController
from algorithms.maths.logprobs import kl_estimate
from algorithms.maths.masking import keep
from algorithms.maths.preference_losses import bradley_terry_loss, centred_pair_loss, centring_sign
from algorithms.maths.value_losses import clipped_value_loss_map, explained_variance
from algorithms.maths.whitening import whiten_groups
from tests.property.batches import POISON, Batch, batches, log_ratios, poisoned, row_splits

SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def _padded(values: Tensor, columns: int, poison: float) -> Tensor:
    return torch.cat([values, torch.full((len(values), columns), poison, dtype=values.dtype)], dim=1)


def _no_more(mask: Tensor, columns: int) -> Tensor:
    return torch.cat([mask, torch.zeros(len(mask), columns, dtype=torch.bool)], dim=1)


# -- advantages ------------------------------------------------------------------------------------------------------


@given(batch=batches(), gamma=SHARES)
def test_with_lam_one_an_advantage_is_the_return_less_the_value(batch: Batch, gamma: float) -> None:
    rewards, values, mask = batch.advantages, batch.logprobs, batch.mask
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=1.0)
    to_go = discounted_returns(rewards, mask, gamma=gamma)
    torch.testing.assert_close(returns, to_go, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(advantages, keep(to_go - values, mask), rtol=1e-9, atol=1e-9)


@given(batch=batches(), gamma=SHARES)
def test_with_lam_zero_it_is_the_error_of_one_step(batch: Batch, gamma: float) -> None:
    rewards, values = batch.advantages, batch.logprobs
    advantages, _ = gae(rewards, values, batch.mask, gamma=gamma, lam=0.0)
    for row, mask in enumerate(batch.mask):
        acts = mask.nonzero().flatten().tolist()
        for slot, after in zip_longest(acts, acts[1:]):
            following = 0.0 if after is None else values[row, after].item()
            error = rewards[row, slot] + gamma * following - values[row, slot]
            assert advantages[row, slot].item() == pytest.approx(error.item(), abs=1e-12)


@given(batch=batches(), gamma=SHARES, lam=SHARES, poison=st.sampled_from(POISON), columns=st.integers(0, 3))
def test_padding_changes_no_advantage_and_never_leaks(
    batch: Batch, gamma: float, lam: float, poison: float, columns: int
) -> None:
    rewards, values = (poisoned(one, batch.mask, poison) for one in (batch.advantages, batch.logprobs))
    found = gae(rewards, values, batch.mask, gamma=gamma, lam=lam)
    wider, widest = (_padded(one, columns, poison) for one in (rewards, values))
    again = gae(wider, widest, _no_more(batch.mask, columns), gamma=gamma, lam=lam)
    for one, other in zip(found, again, strict=True):
        assert torch.equal(other[:, : one.shape[1]], one) and not other[:, one.shape[1] :].any()
        assert not one[~batch.mask].any()


@given(batch=batches(), gamma=SHARES, lam=SHARES)
def test_tokens_of_others_are_stepped_over_and_not_discounted_through(batch: Batch, gamma: float, lam: float) -> None:
    found = gae(batch.advantages, batch.logprobs, batch.mask, gamma=gamma, lam=lam)
    for row, mask in enumerate(batch.mask):
        rewards, values = (one[row : row + 1, mask] for one in (batch.advantages, batch.logprobs))
        whole = torch.ones_like(rewards, dtype=torch.bool)
        for one, other in zip(found, gae(rewards, values, whole, gamma=gamma, lam=lam), strict=True):
            assert torch.equal(one[row : row + 1, mask], other)


@given(batch=batches(), scale=st.sampled_from([0.5, 2.0, 8.0]), lam=SHARES)
def test_a_scale_of_the_rewards_is_one_of_the_values_too(batch: Batch, scale: float, lam: float) -> None:
    rewards, values, mask = batch.advantages, batch.logprobs, batch.mask
    scaled = gae(rewards, scale * values, mask, gamma=0.5, lam=lam, reward_scale=scale)
    for one, other in zip(scaled, gae(rewards, values, mask, gamma=0.5, lam=lam), strict=True):
        assert torch.equal(one, scale * other)


@pytest.mark.parametrize("settings", [{"gamma": 1.5}, {"gamma": float("nan")}, {"lam": -0.1}, {"reward_scale": 0.0}])
def test_settings_outside_their_bounds_are_refused(settings: dict[str, float]) -> None:
    rows = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=f"{next(iter(settings))} = "):
        gae(rows, rows, rows.bool(), **{"gamma": 1.0, "lam": 1.0} | settings)


# -- where the score is paid, and what the KL costs ------------------------------------------------------------------


@given(batch=batches(), place=st.sampled_from(["eos", "last_column"]), poison=st.sampled_from(POISON))
def test_a_row_is_paid_its_score_once_less_its_kl(batch: Batch, place: RewardPlacement, poison: float) -> None:
    scores, kl = batch.old_logprobs[:, 0], poisoned(batch.logprobs, batch.mask, poison)
    rewards = place_terminal_reward(scores, kl, batch.mask, kl_coef=0.5, reward_clip=None, placement=place)
    paid = rewards + 0.5 * keep(kl, batch.mask)
    whole = batch.mask.any(dim=1) if place == "eos" else torch.ones(len(scores), dtype=torch.bool)
    assert torch.equal(paid.sum(dim=1), torch.where(whole, scores, 0.0))
    assert int((paid != 0).sum()) <= len(scores)


@given(batch=batches())
def test_where_every_slot_is_an_action_both_places_are_one(batch: Batch) -> None:
    every, scores = torch.ones_like(batch.mask), batch.advantages[:, 0]
    one, other = (
        place_terminal_reward(scores, batch.logprobs, every, kl_coef=0.1, reward_clip=None, placement=place)
        for place in ("eos", "last_column")
    )
    assert torch.equal(one, other)


@given(batch=batches())
def test_a_clamped_estimate_charges_what_the_policy_likes_more_and_nothing_else(batch: Batch) -> None:
    signed, clamped = (
        kl_estimate(batch.logprobs, batch.ref_logprobs, batch.mask, estimator=kind) for kind in ("k1", "k1_clamped")
    )
    assert torch.equal(clamped, torch.where(signed > 0, signed, 0.0))


def _controllers() -> st.SearchStrategy[KlController]:
    coefs = st.floats(1e-3, 10.0)
    adaptive = st.builds(AdaptiveKl, coef=coefs, target=st.floats(0.5, 20.0), horizon=st.floats(1000.0, 20000.0))
    return st.one_of(st.builds(FixedKl, coef=coefs), adaptive)


STEPS = st.lists(st.tuples(st.floats(-5.0, 100.0), st.integers(1, 512)), max_size=6)


@given(controller=_controllers(), steps=STEPS, saved_at=st.integers(0, 6))
def test_a_controller_that_was_saved_goes_on_to_the_bit(
    controller: KlController, steps: list[tuple[float, int]], saved_at: int
) -> None:
    unbroken = resumed = controller
    for number, (kl, rollouts) in enumerate(steps):
        if number == saved_at:
            resumed = controller.resumed(json.loads(json.dumps(resumed.state())))
        unbroken, resumed = (one.after(kl, num_rollouts=rollouts) for one in (unbroken, resumed))
    assert resumed == unbroken


@given(kl=st.floats(-5.0, 100.0), rollouts=st.integers(1, 512))
def test_the_cost_moves_towards_the_target_by_a_fifth_of_the_horizon_at_most(kl: float, rollouts: int) -> None:
    before = AdaptiveKl(coef=0.2, target=6.0, horizon=10_000.0)
    after = before.after(kl, num_rollouts=rollouts)
    assert (after.coef > before.coef) == (kl > 6.0) and (after.coef < before.coef) == (kl < 6.0)
    assert abs(after.coef / before.coef - 1.0) <= 0.2 * rollouts / 10_000.0 + 1e-15


def test_a_controller_refuses_what_it_cannot_answer_to() -> None:
    adaptive, fixed = AdaptiveKl(coef=0.2, target=6.0, horizon=100.0), FixedKl(coef=0.2)
    with pytest.raises(ValueError, match="kl = nan must be finite"):
        adaptive.after(math.nan, num_rollouts=4)
    with pytest.raises(ValueError, match="num_rollouts = 500 must be below"):
        adaptive.after(0.0, num_rollouts=500)
    with pytest.raises(ValueError, match="this one is fixed"):
        fixed.resumed(adaptive.state())
    with pytest.raises(ValueError, match="this one adapts"):
        adaptive.resumed(fixed.state())
    with pytest.raises(ValueError, match="coef = -1"):
        adaptive.resumed({"coef": -1.0})
    with pytest.raises(ValueError, match=r"target = 0\.0 must be positive"):
        AdaptiveKl(coef=0.2, target=0.0, horizon=1.0)


# -- the critic's loss -----------------------------------------------------------------------------------------------


def _value_loss(batch: Batch, values: Tensor, clip: float | None, rows: Tensor | slice = slice(None)) -> Tensor:
    loss = clipped_value_loss_map(
        values[rows], batch.old_logprobs[rows], batch.advantages[rows], batch.mask[rows], clip=clip
    ).loss
    counts = {"global_num_sequences": batch.num_sequences, "global_num_tokens": batch.num_tokens}
    return weighted(loss, token_weights(batch.mask[rows], mode="token-mean", **counts)).sum()


@given(batch=batches(), data=st.data(), clip=st.sampled_from([None, 0.0, 0.5]))
def test_splitting_the_batch_changes_neither_the_critics_loss_nor_its_gradient(
    batch: Batch, data: st.DataObject, clip: float | None
) -> None:
    whole, split = (batch.logprobs.clone().requires_grad_() for _ in range(2))
    loss = _value_loss(batch, whole, clip)
    loss.backward()
    shares = [_value_loss(batch, split, clip, rows) for rows in data.draw(row_splits(len(batch.mask)))]
    torch.stack(shares).sum().backward()
    torch.testing.assert_close(torch.stack(shares).sum(), loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(split.grad, whole.grad, rtol=1e-12, atol=1e-12)


@given(batch=batches(), clip=st.sampled_from([None, 0.0, 0.5]), poison=st.sampled_from(POISON))
def test_poison_behind_the_mask_reaches_neither_the_critics_loss_nor_its_gradient(
    batch: Batch, clip: float | None, poison: float
) -> None:
    values = poisoned(batch.logprobs, batch.mask, poison).requires_grad_()
    old, returns = (poisoned(one, batch.mask, poison) for one in (batch.old_logprobs, batch.advantages))
    result = clipped_value_loss_map(values, old, returns, batch.mask, clip=clip)
    result.loss.sum().backward()
    assert values.grad is not None and torch.isfinite(values.grad).all() and not values.grad[~batch.mask].any()
    clean = clipped_value_loss_map(batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask, clip=clip)
    assert torch.equal(result.loss, clean.loss) and torch.equal(result.clip_hit, clean.clip_hit)


@given(batch=batches())
def test_the_bound_makes_no_loss_smaller_and_beyond_it_nothing_pulls(batch: Batch) -> None:
    values = batch.logprobs.clone().requires_grad_()
    bounded = clipped_value_loss_map(values, batch.old_logprobs, batch.advantages, batch.mask, clip=0.5)
    free = clipped_value_loss_map(batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask, clip=None)
    assert (bounded.loss >= free.loss).all() and not free.clip_hit.any()
    bounded.loss.sum().backward()
    assert values.grad is not None and not values.grad[bounded.clip_hit].any()
    towards = (batch.advantages - batch.old_logprobs) * (batch.logprobs - batch.old_logprobs) > 0
    assert (towards[bounded.clip_hit]).all()


def test_a_negative_bound_is_refused() -> None:
    rows = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"clip = -0\.1 must not be negative"):
        clipped_value_loss_map(rows, rows, rows, rows.bool(), clip=-0.1)


@given(batch=batches(), poison=st.sampled_from(POISON), columns=st.integers(0, 2))
def test_explained_variance_is_that_of_the_masked_tokens(batch: Batch, poison: float, columns: int) -> None:
    values, returns = batch.logprobs, batch.advantages
    found = explained_variance(values, returns, batch.mask)
    chosen = returns[batch.mask]
    if chosen.numel() == 0 or chosen.max() == chosen.min():
        assert found is None
        return
    wide, widest = (_padded(poisoned(one, batch.mask, poison), columns, poison) for one in (values, returns))
    assert explained_variance(wide, widest, _no_more(batch.mask, columns)) == found
    assert explained_variance(returns - 3.0, returns, batch.mask) == pytest.approx(1.0)
    assert explained_variance(torch.full_like(values, 2.0), returns, batch.mask) == pytest.approx(0.0, abs=1e-12)
    assert found is not None and found <= 1.0


# -- whitening -------------------------------------------------------------------------------------------------------


@given(batch=batches(), data=st.data(), columns=st.integers(0, 2), shift=st.booleans())
def test_whitening_a_rollout_depends_neither_on_its_order_nor_on_its_padding(
    batch: Batch, data: st.DataObject, columns: int, shift: bool
) -> None:
    order = torch.cat(data.draw(row_splits(len(batch.mask))))
    z = whiten_groups(batch.advantages, batch.mask, shift_mean=shift)
    wide = _padded(poisoned(batch.advantages, batch.mask, float("nan")), columns, float("inf"))[order]
    again = whiten_groups(wide, _no_more(batch.mask, columns)[order], shift_mean=shift)
    torch.testing.assert_close(again[:, : z.shape[1]], z[order], rtol=1e-9, atol=1e-9)
    assert not again[:, z.shape[1] :].any()


@given(batch=batches(), data=st.data(), shift=st.booleans())
def test_groups_are_whitened_as_if_each_were_alone(batch: Batch, data: st.DataObject, shift: bool) -> None:
    shards = data.draw(row_splits(len(batch.mask)))
    groups = torch.zeros(len(batch.mask), dtype=torch.int64)
    for number, rows in enumerate(shards):
        groups[rows] = number
    z = whiten_groups(batch.advantages, batch.mask, groups, shift_mean=shift)
    for rows in shards:
        alone = whiten_groups(batch.advantages[rows], batch.mask[rows], shift_mean=shift)
        torch.testing.assert_close(z[rows], alone, rtol=1e-12, atol=1e-12)


@given(batch=batches())
def test_whitened_tokens_are_standardised_or_keep_their_mean(batch: Batch) -> None:
    chosen = batch.advantages[batch.mask]
    assume(chosen.numel() and chosen.max() > chosen.min())
    z = whiten_groups(batch.advantages, batch.mask)[batch.mask]
    assert z.mean().item() == pytest.approx(0.0, abs=1e-9)
    assert z.var(correction=0).item() == pytest.approx(1.0, abs=1e-4)  # the spread is at least 2^-8, the epsilon 1e-8
    unmoved = whiten_groups(batch.advantages, batch.mask, shift_mean=False)[batch.mask]
    torch.testing.assert_close(unmoved - chosen.mean(), z, rtol=1e-9, atol=1e-9)


def test_too_few_rows_and_what_is_not_finite_are_refused() -> None:
    rows, mask = torch.zeros(7, 2), torch.ones(7, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="group 0 has 7 rows, fewer than min_rows = 8"):
        whiten_groups(rows, mask, min_rows=8)
    rows[3, 1] = float("nan")
    with pytest.raises(ValueError, match="row 3, token 1 is nan"):
        whiten_groups(rows, mask)


# -- the reward model's loss -----------------------------------------------------------------------------------------


@given(pairs=log_ratios(), data=st.data())
def test_with_the_sign_of_the_whole_batch_the_centred_loss_is_the_same_however_it_is_split(
    pairs: tuple[Tensor, Tensor], data: st.DataObject
) -> None:
    whole, split = ([side.clone().requires_grad_() for side in pairs] for _ in range(2))
    sums = whole[0] + whole[1]
    coupled = bradley_terry_loss(*whole).loss.mean() + 0.25 * sums.mean().abs()
    coupled.backward()
    sign, count = centring_sign(*pairs), len(sums)
    shares = [
        centred_pair_loss(split[0][rows], split[1][rows], centre_weight=0.25, sign=sign).loss.sum() / count
        for rows in data.draw(row_splits(count))
    ]
    torch.stack(shares).sum().backward()
    torch.testing.assert_close(torch.stack(shares).sum(), coupled, rtol=1e-12, atol=1e-12)
    for one, other in zip(split, whole, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-12)


def test_a_weight_or_sign_that_is_none_is_refused() -> None:
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="centre_weight = -1"):
        centred_pair_loss(one, one, centre_weight=-1.0, sign=1.0)
    with pytest.raises(ValueError, match=r"sign = 0\.5 must be"):
        centred_pair_loss(one, one, centre_weight=1.0, sign=0.5)
