"""MM-DPO's objective and the weights of imitated responses, by hand."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from algorithms.algorithm import Scores
from algorithms.figures import values
from algorithms.maths.aggregation import response_weights
from algorithms.maths.preference_losses import weighted_scores
from algorithms.mm_dpo import MmDpo
from tests.response_scores import row_groups

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


def test_a_token_without_weight_leaks_nothing() -> None:
    logprobs = _doubles(-1.0, NAN, INF).requires_grad_()
    (loss,) = -weighted_scores(logprobs[None], _doubles(0.5, 0.0, 0.0)[None])
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert loss.item() == 0.5
    assert gradient.tolist() == [-0.5, 0.0, 0.0]


def test_objective_by_hand() -> None:
    # Pairs of responses whose z are 3 and -1, so beta z = 0.3 and -0.2; the chosen ones are imitated.
    algorithm = MmDpo("mm_dpo", {name: section() for name, section in MmDpo.sections.items()})
    mask, sums = torch.ones(4, 1, dtype=torch.bool), _doubles(-8.0, -6.0, -5.0, -5.0)
    reference = sums - _doubles(2.0, -2.0, -1.0, -1.0)
    groups = row_groups(algorithm, mask, reference, _doubles(0.1, 0.2), _doubles(0.0625, 0.0625), alpha=0.5)
    found = algorithm.objective()(Scores(logprobs=sums.split(1)), groups)
    pairs, told = [-_log_sigmoid(0.3), -_log_sigmoid(-0.2)], values(found.figures)
    assert told["preference/margin"] == pytest.approx((0.3 - 0.2) / 2)
    assert told["policy/imitation_loss"] == pytest.approx(0.5 * 1.75)
    assert found.losses.tolist() == pytest.approx([0.25 * sum(pairs) + 0.5 * 1.75])
