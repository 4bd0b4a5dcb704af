"""Log-probs, entropy and KL on distributions small enough to do by hand."""

import math

import pytest
import torch

from algorithms.maths.logprobs import kl_estimate, token_logprobs


def test_logprobs_and_entropy_of_a_two_way_choice() -> None:
    # softmax(0, ln 3) = (1/4, 3/4)
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]], dtype=torch.float64)
    logprobs, entropy, _ = token_logprobs(logits, torch.tensor([1, 0]))
    torch.testing.assert_close(logprobs.exp(), torch.tensor([0.75, 0.5], dtype=torch.float64))
    mixed = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    torch.testing.assert_close(entropy, torch.tensor([mixed, math.log(2.0)], dtype=torch.float64))


def test_half_precision_logits_give_float32_results() -> None:
    logprobs, entropy, _ = token_logprobs(torch.zeros(2, 4, dtype=torch.bfloat16), torch.tensor([0, 3]))
    assert (logprobs.dtype, entropy.dtype) == (torch.float32, torch.float32)
    assert logprobs.tolist() == pytest.approx([-math.log(4.0)] * 2)


def test_gradient_of_a_logprob_is_one_hot_minus_softmax_and_entropy_has_none() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    logprobs, entropy, _ = token_logprobs(logits, torch.tensor([1]))
    logprobs.sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, 0.25]]))
    assert not entropy.requires_grad


def test_entropy_of_a_token_banned_by_minus_infinity_is_finite() -> None:
    _, entropy, _ = token_logprobs(torch.tensor([[0.0, 0.0, -math.inf]]), torch.tensor([0]))
    assert entropy.item() == pytest.approx(math.log(2.0))


def test_a_temperature_divides_logits_and_a_ban_leaves_the_rest_to_the_others() -> None:
    # With the last banned and T = 2: softmax(ln 9 / 2, 0) = (3/4, 1/4); the first is the likeliest that may be drawn.
    logits = torch.tensor([[math.log(9.0), 0.0, 50.0]] * 2, dtype=torch.float64)
    scores = token_logprobs(logits, torch.tensor([0, 1]), temperature=2.0, banned_ids=[2])
    torch.testing.assert_close(scores.logprobs.exp(), torch.tensor([0.75, 0.25], dtype=torch.float64))
    mixed = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    torch.testing.assert_close(scores.entropy, torch.tensor([mixed, mixed], dtype=torch.float64))
    assert scores.greedy.tolist() == [True, False]


def test_gradient_of_a_tempered_logprob_is_that_of_its_own_softmax() -> None:
    # d log p(0) / d logit = (one-hot - p) / T, and nothing reaches what is banned.
    logits = torch.tensor([[math.log(9.0), 0.0, 50.0]], requires_grad=True)
    token_logprobs(logits, torch.tensor([0]), temperature=2.0, banned_ids=[2]).logprobs.sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.125, -0.125, 0.0]]))


def test_the_plain_distribution_costs_no_bit() -> None:
    logits, ids = torch.randn(7, 11, generator=torch.Generator().manual_seed(0)), torch.arange(7)
    plain = logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    assert torch.equal(token_logprobs(logits, ids).logprobs, plain)


def test_kl_estimators_by_hand() -> None:
    # d = ln 2: k1 = ln 2, k2 = (ln 2)^2 / 2, k3 = 1/2 - 1 + ln 2
    logprobs, ref = torch.tensor([[0.0, math.log(0.5)]]), torch.tensor([[0.0, math.log(0.25)]])
    mask = torch.tensor([[False, True]])
    estimates = {name: kl_estimate(logprobs, ref, mask, estimator=name)[0, 1].item() for name in ("k1", "k2", "k3")}
    assert estimates == pytest.approx({"k1": math.log(2.0), "k2": 0.5 * math.log(2.0) ** 2, "k3": math.log(2.0) - 0.5})
