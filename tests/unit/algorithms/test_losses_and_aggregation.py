"""Loss maps, their guards, and the road from a map to a scalar."""

import math

import pytest
import torch

from algorithms.maths.aggregation import Aggregation, token_weights, weighted
from algorithms.maths.importance import correction_weights
from algorithms.maths.logprobs import Mismatch, logprob_mismatch
from algorithms.maths.masking import masked_mean
from algorithms.maths.policy_losses import pre_clip, sft_loss_map

NAN, INF = float("nan"), float("inf")
MASK = torch.tensor([[False, True, True, True], [False, True, False, False], [False, False, False, False]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # Row 0 holds 1, 2, 3; row 1 holds 8; row 2 nothing. 2 sequences and 4 tokens count.
        ("token-mean", 14 / 4),
        ("seq-mean-token-mean", (2 + 8) / 2),
        ("seq-mean-token-sum", (6 + 8) / 2),
        ("seq-mean-token-sum-norm", (6 + 8) / 2 / 10),
    ],
)
def test_the_four_aggregation_modes(mode: Aggregation, expected: float) -> None:
    loss = torch.tensor([[NAN, 1.0, 2.0, 3.0], [NAN, 8.0, NAN, INF], [NAN, NAN, NAN, NAN]])
    weights = token_weights(MASK, mode=mode, global_num_sequences=2, global_num_tokens=4, max_tokens=10)
    assert weighted(loss, weights).sum().item() == pytest.approx(expected)


def test_part_of_a_batch_without_tokens_weighs_nothing() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    weights = token_weights(nothing, mode="token-mean", global_num_sequences=0, global_num_tokens=0)
    assert weighted(torch.full((2, 3), NAN), weights).sum().item() == 0.0


def test_counts_that_contradict_the_mask_are_refused() -> None:
    with pytest.raises(ValueError, match=r"global counts \(0, 4\) must be at least 1"):
        token_weights(MASK, mode="token-mean", global_num_sequences=0, global_num_tokens=4)


@pytest.mark.parametrize("max_tokens", [None, 0])
def test_constant_divisor_is_required_where_it_divides(max_tokens: int | None) -> None:
    with pytest.raises(ValueError, match=f"max_tokens = {max_tokens} must be at least 1"):
        token_weights(
            MASK, mode="seq-mean-token-sum-norm", global_num_sequences=2, global_num_tokens=4, max_tokens=max_tokens
        )


def test_masked_mean_over_each_extent() -> None:
    values = torch.tensor([[NAN, 1.0, 2.0, 3.0], [NAN, 8.0, NAN, NAN], [NAN, NAN, NAN, NAN]])
    assert masked_mean(values, MASK).item() == 3.5
    assert masked_mean(values, MASK, dim=1).tolist() == [2.0, 8.0, 0.0]
    assert masked_mean(values, MASK, dim=0).tolist() == [0.0, 4.5, 2.0, 3.0]


def test_pre_clip_clamps_the_log_ratio_and_says_where() -> None:
    clamped, hit = pre_clip(torch.tensor([[-9.0, 0.5, 9.0]]), ratio_min=0.5, ratio_max=4.0)
    torch.testing.assert_close(clamped, torch.tensor([[-math.log(2.0), 0.5, math.log(4.0)]]))
    assert hit.tolist() == [[True, False, True]]


@pytest.mark.parametrize(("ratio_min", "ratio_max"), [(0.0, 2.0), (1.5, 2.0), (0.5, 0.9)])
def test_pre_clip_bounds_must_enclose_one(ratio_min: float, ratio_max: float) -> None:
    with pytest.raises(ValueError, match="must satisfy 0 < min <= 1 <= max"):
        pre_clip(torch.zeros(1, 1), ratio_min=ratio_min, ratio_max=ratio_max)


def test_sft_loss_is_the_negative_logprob_of_counted_tokens() -> None:
    loss = sft_loss_map(torch.tensor([[NAN, -0.5, -2.0]]), torch.tensor([[False, True, True]]))
    assert loss.tolist() == [[0.0, 0.5, 2.0]]


def test_importance_weights_are_truncated_from_above_only_and_detached() -> None:
    old = torch.tensor([[0.0, -1.0, -1.0, -1.0]], requires_grad=True)
    rollout = torch.tensor([[NAN, -1.0 + math.log(4.0), -1.0 - math.log(4.0), -1.0]])
    mask = torch.tensor([[False, True, True, True]])
    weights = correction_weights(old, rollout, mask, [4], mode="token_truncate", minimum=None, maximum=2.0)
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.25, 2.0, 1.0]]))
    assert not weights.requires_grad


def test_token_the_engine_could_not_score_is_dropped_and_counted() -> None:
    old, rollout = torch.tensor([[0.0, -1.0, -1.0, -2.0]]), torch.tensor([[0.0, NAN, -INF, -2.5]])
    mask = torch.tensor([[False, True, True, True]])
    weights = correction_weights(old, rollout, mask, [4], mode="token_truncate", minimum=None, maximum=10.0)
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.0, 0.0, math.exp(0.5)]]))
    assert logprob_mismatch(old, rollout, mask) == Mismatch(0.5, 0.5, 2)


def test_mismatch_is_taken_over_the_mask() -> None:
    old, rollout = torch.tensor([[9.0, -1.0, -2.0]]), torch.tensor([[0.0, -1.5, -1.0]])
    assert logprob_mismatch(old, rollout, torch.tensor([[False, True, True]])) == Mismatch(0.75, 1.0, 0)
    assert logprob_mismatch(old, rollout, torch.zeros(1, 3, dtype=torch.bool)) == Mismatch(0.0, 0.0, 0)


def test_ratio_of_a_response_is_of_the_tokens_that_its_engine_scored() -> None:
    # Ratios 2 and 2 in one response, 1/2 and one unscored in the other; 4 is beyond the bound of 3.
    old = torch.tensor([[-1.0, -1.0, -1.0, -1.0]])
    gap = torch.tensor([[math.log(2.0), math.log(2.0), -math.log(2.0), 0.0]])
    rollout = torch.where(torch.tensor([[True, True, True, False]]), old - gap, torch.tensor(NAN))
    mask, bounds = torch.ones(1, 4, dtype=torch.bool), {"minimum": None, "maximum": 3.0}
    cut = correction_weights(old, rollout, mask, [2, 2], mode="sequence_truncate", **bounds)
    torch.testing.assert_close(cut, torch.tensor([[3.0, 3.0, 0.5, 0.0]]))
    dropped = correction_weights(old, rollout, mask, [2, 2], mode="sequence_mask", **bounds)
    torch.testing.assert_close(dropped, torch.tensor([[0.0, 0.0, 0.5, 0.0]]))


@pytest.mark.parametrize(("minimum", "maximum"), [(None, 0.0), (-1.0, 2.0), (2.5, 2.0)])
def test_bounds_of_a_weight_must_leave_something_between_them(minimum: float | None, maximum: float) -> None:
    nothing = torch.zeros(1, 1)
    with pytest.raises(ValueError, match=r"must satisfy 0 <= minimum <= maximum"):
        correction_weights(
            nothing,
            nothing,
            torch.ones(1, 1, dtype=torch.bool),
            [1],
            mode="token_mask",
            minimum=minimum,
            maximum=maximum,
        )
