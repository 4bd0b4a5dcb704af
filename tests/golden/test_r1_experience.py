"""Rewards, returns, whitening, filter and their composition against the numbers of the original R1-Reward code.

The profile is ``r1_released`` throughout, because that is what the original runs.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.maths.advantages import (
    Moments,
    discounted_returns,
    filter_advantages,
    group_advantages,
    place_terminal_reward,
    token_moments,
    whiten,
)
from algorithms.maths.logprobs import kl_estimate
from algorithms.maths.masking import masked_mean
from algorithms.policy_gradient import AlgorithmSection, PolicyGradient
from algorithms.reinforce_pp import ReinforcePpBaseline
from algorithms.stable_reinforce import StableReinforce
from tests.golden.vectors import Case, assert_close, mask_of, one, select

FILE = "r1_reward.json"
REWARD = "openrlhf/models/utils.py:37-74"
RETURNS = "openrlhf/trainer/ppo_utils/experience_maker.py:473-515"
BUFFER = "openrlhf/trainer/ppo_utils/replay_buffer.py:237-276"
EXPERIENCE = "openrlhf/trainer/ppo_utils/experience_maker.py:193-261"

Shard = tuple[Tensor, Tensor]


def _name(case: Case) -> str:
    return case.name


def _pad(rows: list[list[float]], dtype: torch.dtype) -> Shard:
    """Ragged rows as a padded tensor and its mask; the padding is NaN, which nothing may read."""
    width = max(len(row) for row in rows)
    values = torch.full((len(rows), width), float("nan"), dtype=dtype)
    for index, row in enumerate(rows):
        values[index, : len(row)] = torch.tensor(row, dtype=dtype)
    return values, torch.arange(width) < torch.tensor([[len(row)] for row in rows])


def _reward_clip(params: dict[str, Any]) -> float | None:
    if params["reward_clip_range"] is None:
        return None
    low, high = params["reward_clip_range"]
    assert low == -high
    return float(high)


@pytest.mark.parametrize("case", select(FILE, REWARD, without=("packed_lists",)), ids=_name)
def test_terminal_reward_on_the_policys_tokens_and_nothing_elsewhere(case: Case) -> None:
    # Named deviation: the original leaves the KL of masked positions in, and rewards the last column of an empty row.
    kl = torch.tensor(case.inputs["kl"], dtype=case.dtype)
    mask = mask_of(case.inputs["action_mask"], kl)
    rewards = place_terminal_reward(
        torch.tensor(case.inputs["r"], dtype=case.dtype),
        kl,
        mask,
        kl_coef=case.params["kl_coef"],
        reward_clip=_reward_clip(case.params),
    )
    assert_close(rewards[mask], torch.tensor(case.outputs["reward"], dtype=case.dtype)[mask])
    assert not rewards[~mask].any()


def test_row_without_actions_gets_no_reward_where_the_original_rewards_its_last_column() -> None:
    case = one(FILE, REWARD, "all_masked_row_puts_reward_on_last_column")
    kl = torch.tensor(case.inputs["kl"], dtype=case.dtype)
    scores = torch.tensor(case.inputs["r"], dtype=case.dtype)
    mask = mask_of(case.inputs["action_mask"], kl)
    assert not mask[0].any()
    assert_close(case.params["kl_coef"] * kl[0, -1] + case.outputs["reward"][0][-1], scores[0])
    rewards = place_terminal_reward(scores, kl, mask, kl_coef=case.params["kl_coef"], reward_clip=10.0)
    assert not rewards[0].any()


def test_terminal_reward_of_packed_rows() -> None:
    case = one(FILE, REWARD, "packed_lists")
    kl, mask = _pad(case.inputs["kl_list"], case.dtype)
    expected, _ = _pad(case.outputs["reward_list"], case.dtype)
    rewards = place_terminal_reward(
        torch.tensor(case.inputs["r"], dtype=case.dtype),
        kl,
        mask,
        kl_coef=case.params["kl_coef"],
        reward_clip=_reward_clip(case.params),
    )
    assert_close(rewards, expected.nan_to_num(0.0))


@pytest.mark.parametrize("case", select(FILE, RETURNS, without=("packed_lists", "mask_with_holes")), ids=_name)
def test_discounted_returns(case: Case) -> None:
    rewards = torch.tensor(case.inputs["rewards"], dtype=case.dtype)
    returns = discounted_returns(rewards, mask_of(case.inputs["action_mask"], rewards), gamma=case.params["gamma"])
    assert_close(returns, case.outputs["returns"])


def test_discounted_returns_of_packed_rows() -> None:
    case = one(FILE, RETURNS, "packed_lists")
    rewards, mask = _pad(case.inputs["rewards_list"], case.dtype)
    expected, _ = _pad(case.outputs["returns_list"], case.dtype)
    assert_close(discounted_returns(rewards, mask, gamma=case.params["gamma"]), expected.nan_to_num(0.0))


def test_a_hole_in_the_mask_is_stepped_over_where_the_original_discounts_through_it() -> None:
    case = one(FILE, RETURNS, "mask_with_holes")
    gamma = case.params["gamma"]
    rewards = torch.tensor(case.inputs["rewards"], dtype=case.dtype)
    released = torch.tensor(case.outputs["returns"], dtype=case.dtype)
    mask = mask_of(case.inputs["action_mask"], rewards)
    assert mask.tolist() == [[True, True, False, True, True], [False, True, True, True, True]]
    returns = discounted_returns(rewards, mask, gamma=gamma)
    assert_close(returns[0, 3:], released[0, 3:])
    assert_close(returns[0, 1], rewards[0, 1] + gamma * released[0, 3])
    assert_close(released[0, 1], rewards[0, 1] + gamma**2 * released[0, 3])
    assert_close(returns[0, 0], rewards[0, 0] + gamma * returns[0, 1])
    # Nothing but a leading gap in the second row: the same numbers on its actions.
    assert_close(returns[1, 1:], released[1, 1:])


def _rollout(shards: list[Shard]) -> Shard:
    """The shards one below the other, as one driver sees them; the padding is NaN, which nothing may read."""
    width = max(values.shape[1] for values, _ in shards)

    def widened(part: Tensor, fill: float | bool) -> Tensor:
        return torch.nn.functional.pad(part, (0, width - part.shape[1]), value=fill)

    whole, masks = zip(*((widened(values, float("nan")), widened(mask, False)) for values, mask in shards), strict=True)
    return torch.cat(whole), torch.cat(masks)


def _rows(values: Tensor, mask: Tensor) -> list[Tensor]:
    return [row[kept] for row, kept in zip(values, mask, strict=True)]


def _whiten_and_filter(shards: list[Shard]) -> tuple[Moments, list[Tensor], list[Tensor]]:
    """Moments of all shards; their rows of z and of filtered advantages, padding cut off."""
    values, mask = _rollout(shards)
    moments = token_moments(values, mask)
    z = whiten(values, mask, moments)
    result = filter_advantages(z, mask, rule="r1_released", raw_mean=moments.mean)
    return moments, _rows(z, mask), _rows(result.advantages, mask)


def _shards(experiences: list[dict[str, Any]], dtype: torch.dtype) -> list[Shard]:
    shards = []
    for experience in experiences:
        if "advantages_list" in experience:
            shards.append(_pad(experience["advantages_list"], dtype))
        else:
            values = torch.tensor(experience["advantages"], dtype=dtype)
            shards.append((values, mask_of(experience["action_mask"], values)))
    return shards


def _assert_rows_close(rows: list[Tensor], expected: list[list[float]]) -> None:
    for row, wanted in zip(rows, expected, strict=True):
        assert_close(row, wanted)


def _assert_moments_close(moments: Moments, mean: float, rstd: float) -> None:
    assert_close(torch.tensor(moments.mean, dtype=torch.float32), mean)
    assert_close(torch.tensor(max(moments.variance, 1e-8) ** -0.5, dtype=torch.float32), rstd)


@pytest.mark.parametrize(
    "case",
    select(
        FILE,
        BUFFER,
        without=("infinite_return", "nan_return", "quirk_mask_hole_strips_trailing_tokens", "two_dp_ranks"),
    ),
    ids=_name,
)
def test_whitening_and_released_filter(case: Case) -> None:
    moments, whitened, filtered = _whiten_and_filter(_shards(case.inputs["experiences"], case.dtype))
    _assert_moments_close(moments, case.outputs["mean"], case.outputs["rstd"])
    _assert_rows_close(whitened, case.outputs["z_before_filter"])
    _assert_rows_close(filtered, case.outputs["advantages"])


def test_whitening_over_two_ranks() -> None:
    case = one(FILE, BUFFER, "two_dp_ranks")
    by_rank = [_shards(experiences, case.dtype) for experiences in case.inputs["experiences_by_rank"]]
    moments, _, filtered = _whiten_and_filter([shard for rank in by_rank for shard in rank])
    _assert_moments_close(moments, case.outputs["mean"][0], case.outputs["rstd"][0])
    expected = [row for rank in case.outputs["advantages_by_rank"] for row in rank]
    _assert_rows_close(filtered, expected)


@pytest.mark.parametrize("name", ["zero_variance_equal_rewards", "zero_variance_mean_beyond_3"])
def test_equal_returns_give_exactly_zero_where_the_original_adds_1e_8(name: str) -> None:
    case = one(FILE, BUFFER, name)
    _, whitened, _ = _whiten_and_filter(_shards(case.inputs["experiences"], case.dtype))
    assert {value for row in case.outputs["z_before_filter"] for value in row} == {9.99999993922529e-09}
    assert {value for row in whitened for value in row.tolist()} == {0.0}


@pytest.mark.parametrize("name", ["infinite_return", "nan_return"])
def test_nonfinite_return_is_refused_where_the_original_zeroes_the_whole_rollout(name: str) -> None:
    case = one(FILE, BUFFER, name)
    assert {value for row in case.outputs["advantages"] for value in row} == {0.0}
    with pytest.raises(ValueError, match=r"row \d, token \d is (inf|nan): it must be finite, or masked out"):
        _whiten_and_filter(_shards(case.inputs["experiences"], case.dtype))


def test_a_hole_in_the_mask_is_left_out_of_the_moments_where_the_original_strips_the_last_token() -> None:
    case = one(FILE, BUFFER, "quirk_mask_hole_strips_trailing_tokens")
    ((values, mask),) = _shards(case.inputs["experiences"], case.dtype)
    moments, z, _ = _whiten_and_filter([(values, mask)])
    chosen = values[mask].double()
    assert len(case.outputs["z_before_filter"][0]) == 5
    assert [len(row) for row in z] == [5, 5]
    assert_close(torch.tensor([moments.mean], dtype=torch.float64), [chosen.mean().item()])
    assert_close(torch.cat(z), (values[mask] - chosen.mean()) / chosen.std(correction=0))
    assert abs(moments.mean - case.outputs["mean"]) > 1e-3


def _algorithm(case: Case) -> PolicyGradient:
    """What estimates as the case does, with its numbers."""
    params = case.params
    kind = ReinforcePpBaseline if params["advantage_estimator"] == "reinforce_baseline" else StableReinforce
    section = AlgorithmSection(
        adv_filter="r1_released",
        kl_coef=params["init_kl_coef"],
        kl_estimator="k3" if params["use_kl_estimator_k3"] else "k1",
        gamma=params["gamma"],
        reward_clip=_reward_clip(params) or 1e30,
    )
    return kind("as released", {"algorithm": section})


def _kl(experience: dict[str, Any], mask: Tensor, case: Case) -> Tensor:
    logprobs = torch.tensor(experience["log_probs"], dtype=case.dtype)
    if experience["ref_log_probs"] is None:
        return torch.zeros_like(logprobs)
    estimator = _algorithm(case).section.kl_estimator
    return kl_estimate(logprobs, torch.tensor(experience["ref_log_probs"], dtype=case.dtype), mask, estimator=estimator)


@pytest.mark.parametrize("case", select(FILE, EXPERIENCE), ids=_name)
def test_rollout_to_advantages(case: Case) -> None:
    experiences = case.inputs["experiences"]
    scores = torch.cat([torch.tensor(e["reward"], dtype=case.dtype) for e in experiences])
    prompts = torch.arange(len(scores)) // case.params["n_samples_per_prompt"]
    if case.params["advantage_estimator"] == "rloo":  # as released: whitened, too
        scores = group_advantages(scores, prompts, baseline="rloo")
    baselined = (
        group_advantages(scores, prompts, baseline="mean")
        if case.params["advantage_estimator"] == "reinforce_baseline"
        else scores
    )
    of_experience = baselined.split([len(e["reward"]) for e in experiences])
    shards = []
    for index, (experience, own) in enumerate(zip(experiences, of_experience, strict=True)):
        mask = torch.tensor(experience["action_mask"], dtype=torch.bool)
        kl = _kl(experience, mask, case)
        rewards = place_terminal_reward(
            own, kl, mask, kl_coef=case.params["init_kl_coef"], reward_clip=_reward_clip(case.params)
        )
        assert_close(kl, case.outputs["kl"][index])
        assert_close(masked_mean(kl, mask, dim=-1), case.outputs["info_kl"][index])
        assert_close(rewards.sum(dim=-1), case.outputs["info_return"][index])
        returns = discounted_returns(rewards, mask, gamma=case.params["gamma"])
        assert_close(returns, case.outputs["returns"][index])
        shards.append((kl, mask))
    kl, mask = _rollout(shards)
    z, raw_mean = _algorithm(case).advantages(scores, prompts, kl, mask)
    assert_close(torch.tensor(raw_mean, dtype=torch.float32), case.outputs["mean"])
    _assert_rows_close(_rows(z, mask), case.outputs["z_before_filter"])
    filtered = filter_advantages(z, mask, rule="r1_released", raw_mean=raw_mean)
    _assert_rows_close(_rows(filtered.advantages, mask), case.outputs["advantages"])
