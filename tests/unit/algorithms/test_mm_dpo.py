"""MM-DPO's objective and the weights of imitated responses, by hand."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from algorithms.maths.aggregation import response_weights, weighted_nll
from algorithms.maths.mm_dpo import mm_dpo_loss

NAN, INF = float("nan"), float("inf")
NUM_TOKENS, REPEATS = torch.tensor([2, 4, 0, 8]), torch.tensor([1, 3, 1, 0])


def _doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # 1 · 2 + 3 · 4 = 14 tokens; each token of a response weighs as much as the response is repeated.
        ("token-mean", [1 / 14, 3 / 14, 0.0, 0.0]),
        # 1 + 3 = 4 responses; their share is divided among their tokens.
        ("seq-mean-token-mean", [1 / 4 / 2, 3 / 4 / 4, 0.0, 0.0]),
    ],
)
def test_a_response_weighs_what_its_repeats_and_tokens_say(
    mode: Literal["token-mean", "seq-mean-token-mean"], expected: list[float]
) -> None:
    weights = response_weights(NUM_TOKENS, REPEATS, mode=mode, global_num_sequences=4, global_num_tokens=14)
    assert weights.tolist() == pytest.approx(expected, abs=1e-15)


def test_counts_that_contradict_the_responses_are_refused() -> None:
    with pytest.raises(ValueError, match=r"global counts \(0, 14\) must be at least 1"):
        response_weights(NUM_TOKENS, REPEATS, mode="token-mean", global_num_sequences=0, global_num_tokens=14)
    with pytest.raises(ValueError, match=r"repeats = \[1, -3, -1, 0\] must not be negative"):
        response_weights(
            NUM_TOKENS, REPEATS * torch.tensor([1, -1, -1, 1]), mode="token-mean", global_num_sequences=4,
            global_num_tokens=14,
        )  # fmt: skip


def test_nothing_to_imitate_needs_no_counts() -> None:
    none = torch.zeros(4, dtype=torch.long)
    weights = response_weights(NUM_TOKENS, none, mode="token-mean", global_num_sequences=0, global_num_tokens=0)
    assert not weights.any()


def test_a_response_without_weight_leaks_nothing() -> None:
    logprobs = _doubles(-1.0, NAN, INF).requires_grad_()
    loss = weighted_nll(logprobs, _doubles(0.5, 0.0, 0.0))
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert loss.item() == 0.5
    assert gradient.tolist() == [-0.5, 0.0, 0.0]


def test_objective_by_hand() -> None:
    # Pairs (0, 2) and (1, 2) of three responses; z = 3 and -1, so beta z = 0.3 and -0.2.
    result = mm_dpo_loss(
        _doubles(2.0, -2.0),
        _doubles(-1.0, -1.0),
        _doubles(-8.0, -6.0, -5.0),
        betas=_doubles(0.1, 0.2),
        pair_weights=_doubles(0.25, 0.25),
        sft_weights=_doubles(0.125, 0.125, 0.0),
        sft_coef=0.5,
    )
    pairs = [-_log_sigmoid(0.3), -_log_sigmoid(-0.2)]
    assert result.pairs.loss.tolist() == pytest.approx(pairs)
    assert result.pairs.margin.tolist() == pytest.approx([0.3, -0.2])
    assert result.sft.item() == pytest.approx(1.75)
    assert result.loss.item() == pytest.approx(0.25 * sum(pairs) + 0.5 * 1.75)


@pytest.mark.parametrize("sft_coef", [-0.1, NAN, INF])
def test_sft_coef_must_be_finite_and_not_negative(sft_coef: float) -> None:
    one = _doubles(1.0)
    with pytest.raises(ValueError, match=r"sft_coef = .* must be finite and not negative"):
        mm_dpo_loss(one, one, one, betas=one, pair_weights=one, sft_weights=one, sft_coef=sft_coef)
