"""Relations that hold for every rollout, between rewards, returns, whitening, filter and groups."""

from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms.maths.advantages import (
    AdvantageFilter,
    GroupBaseline,
    discounted_returns,
    filter_advantages,
    group_advantages,
    place_terminal_reward,
    token_moments,
    whiten,
)
from algorithms.policy_gradient import AlgorithmSection
from algorithms.reinforce_pp import ReinforcePpBaseline
from tests.property.batches import POISON, Batch, batches, poisoned


@given(batch=batches(), seed=st.integers(0, 1000))
def test_whitening_does_not_depend_on_the_order_of_rollouts(batch: Batch, seed: int) -> None:
    order = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(seed))
    z = whiten(batch.advantages, batch.mask, token_moments(batch.advantages, batch.mask))
    values, mask = batch.advantages[order], batch.mask[order]
    torch.testing.assert_close(whiten(values, mask, token_moments(values, mask)), z[order], rtol=1e-9, atol=1e-9)


@given(batch=batches())
def test_whitened_tokens_have_mean_zero_and_variance_one_or_zero(batch: Batch) -> None:
    moments = token_moments(batch.advantages, batch.mask)
    again = token_moments(whiten(batch.advantages, batch.mask, moments), batch.mask)
    assert again.mean == pytest.approx(0.0, abs=1e-9)
    assert again.variance == pytest.approx(1.0 if moments.variance else 0.0, abs=1e-9)


@given(batch=batches(), shift=st.integers(-100, 100), scale=st.sampled_from([0.5, 2.0, 8.0]))
def test_whitening_forgets_shift_and_scale_of_the_reward(batch: Batch, shift: int, scale: float) -> None:
    moved = batch.advantages * scale + shift
    torch.testing.assert_close(
        whiten(moved, batch.mask, token_moments(moved, batch.mask)),
        whiten(batch.advantages, batch.mask, token_moments(batch.advantages, batch.mask)),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("poison", POISON)
@given(batch=batches(), gamma=st.sampled_from([0.0, 0.5, 1.0]))
def test_poison_behind_the_mask_never_reaches_an_advantage(poison: float, batch: Batch, gamma: float) -> None:
    mask, scores = batch.mask, batch.advantages[:, 0]

    def advantages(kl: torch.Tensor) -> torch.Tensor:
        rewards = place_terminal_reward(scores, kl, mask, kl_coef=0.5, reward_clip=2.0)
        returns = poisoned(discounted_returns(poisoned(rewards, mask, poison), mask, gamma=gamma), mask, poison)
        z = poisoned(whiten(returns, mask, token_moments(returns, mask)), mask, poison)
        return filter_advantages(z, mask, rule="sigma3", raw_mean=0.0).advantages

    found = advantages(poisoned(batch.ref_logprobs, mask, poison))
    assert torch.isfinite(found).all()
    assert torch.equal(found, advantages(batch.ref_logprobs))


@given(batch=batches(), gamma=st.sampled_from([0.0, 0.25, 0.9, 1.0]), at=st.integers(0, 6))
def test_a_token_the_policy_did_not_sample_can_stand_anywhere_without_changing_returns(
    batch: Batch, gamma: float, at: int
) -> None:
    def insert(values: torch.Tensor, fill: float | bool) -> torch.Tensor:
        column = torch.full((len(values), 1), fill, dtype=values.dtype)
        return torch.cat([values[:, :at], column, values[:, at:]], dim=1)

    returns = discounted_returns(batch.advantages, batch.mask, gamma=gamma)
    mask = insert(batch.mask, False)
    widened = discounted_returns(insert(batch.advantages, float("nan")), mask, gamma=gamma)
    assert torch.equal(widened, insert(returns, 0.0))


@given(batch=batches(), gamma=st.sampled_from([0.0, 0.25, 0.9, 1.0]))
def test_returns_satisfy_the_bellman_recursion_over_actions(batch: Batch, gamma: float) -> None:
    returns = discounted_returns(batch.advantages, batch.mask, gamma=gamma)
    for row, rewards, mask in zip(returns, batch.advantages, batch.mask, strict=True):
        actions = mask.nonzero().flatten().tolist()
        for now, following in pairwise(actions):
            assert row[now].item() == rewards[now].item() + gamma * row[following].item()
        assert all(row[last] == rewards[last] for last in actions[-1:])


@given(batch=batches())
def test_undiscounted_returns_start_at_score_less_the_charged_kl(batch: Batch) -> None:
    scores = batch.advantages[:, 0]
    rewards = place_terminal_reward(scores, batch.ref_logprobs, batch.mask, kl_coef=0.25, reward_clip=None)
    charged = torch.where(batch.mask, 0.25 * batch.ref_logprobs, 0.0).sum(dim=1)
    expected = torch.where(batch.mask.any(dim=1), scores, 0.0) - charged
    assert torch.equal(rewards.sum(dim=1), expected)
    returns = discounted_returns(rewards, batch.mask, gamma=1.0)
    for row, mask, start in zip(returns, batch.mask, expected, strict=True):
        assert all(row[first] == start for first in mask.nonzero().flatten()[:1])


@pytest.mark.parametrize("rule", get_args(AdvantageFilter))
@given(batch=batches(), raw_mean=st.floats(-4, 4))
def test_filter_keeps_values_or_zeroes_them_and_doing_it_twice_changes_nothing(
    rule: AdvantageFilter, batch: Batch, raw_mean: float
) -> None:
    z = batch.advantages
    once = filter_advantages(z, batch.mask, rule=rule, raw_mean=raw_mean)
    assert ((once.advantages == z) | (once.advantages == 0)).all()
    twice = filter_advantages(once.advantages, batch.mask, rule=rule, raw_mean=raw_mean)
    assert torch.equal(twice.advantages, once.advantages)
    dropped = int(((z > 0) & batch.mask).sum() - (once.advantages > 0).sum())
    assert once.filtered_pos_frac * int(((z > 0) & batch.mask).sum()) == pytest.approx(dropped)


_GROUPS = st.lists(st.tuples(st.integers(0, 3), st.integers(-8, 8)), min_size=1, max_size=10)


@pytest.mark.parametrize("baseline", get_args(GroupBaseline))
@given(rollouts=_GROUPS, shift=st.integers(-64, 64), seed=st.integers(0, 1000))
def test_group_advantages_follow_the_order_and_forget_what_a_whole_group_gained(
    baseline: GroupBaseline, rollouts: list[tuple[int, int]], shift: int, seed: int
) -> None:
    group_ids = torch.tensor([group for group, _ in rollouts])
    scores = torch.tensor([float(score) for _, score in rollouts], dtype=torch.float64)
    advantages = group_advantages(scores, group_ids, baseline=baseline)

    shifted = scores + shift * (group_ids == 0)
    torch.testing.assert_close(group_advantages(shifted, group_ids, baseline=baseline), advantages, rtol=0, atol=1e-9)
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        group_advantages(scores[order], group_ids[order], baseline=baseline), advantages[order], rtol=0, atol=1e-9
    )
    for group in group_ids.unique():
        assert advantages[group_ids == group].sum().item() == pytest.approx(0.0, abs=1e-9)


@given(rollouts=_GROUPS)
def test_the_mean_of_all_is_the_mean_of_the_others_drawn_in_by_one_share(rollouts: list[tuple[int, int]]) -> None:
    # r - mean(all) = (r - mean(others)) (n - 1) / n
    group_ids = torch.tensor([group for group, _ in rollouts])
    scores = torch.tensor([float(score) for _, score in rollouts], dtype=torch.float64)
    counts = (group_ids[:, None] == group_ids[None]).sum(dim=1)
    of_all, of_others = (group_advantages(scores, group_ids, baseline=name) for name in ("mean", "rloo"))
    torch.testing.assert_close(of_all, of_others * (counts - 1) / counts, rtol=0, atol=1e-9)


@given(rollouts=_GROUPS, shift=st.integers(-64, 64), moved=st.integers(0, 3))
def test_a_whitened_baseline_forgets_what_all_samples_of_a_prompt_gained(
    rollouts: list[tuple[int, int]], shift: int, moved: int
) -> None:
    learner = ReinforcePpBaseline("reinforce_pp_baseline", {"algorithm": AlgorithmSection(reward_clip=1e6)})
    prompts = torch.tensor([group for group, _ in rollouts])
    scores = torch.tensor([float(score) for _, score in rollouts], dtype=torch.float64)
    mask = torch.ones(len(rollouts), 2, dtype=torch.bool)
    nothing = torch.zeros(mask.shape, dtype=torch.float64)
    z, raw_mean = learner.advantages(scores, prompts, nothing, mask)
    again, _ = learner.advantages(scores + shift * (prompts == moved), prompts, nothing, mask)
    torch.testing.assert_close(again, z, rtol=1e-6, atol=1e-6)
    assert raw_mean == pytest.approx(0.0, abs=1e-9)
    moments = token_moments(z, mask)
    assert moments.mean == pytest.approx(0.0, abs=1e-6)
    assert moments.variance == pytest.approx(1.0 if z.any() else 0.0, abs=1e-6)
