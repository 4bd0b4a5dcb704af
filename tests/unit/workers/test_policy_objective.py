"""The first update after a rollout needs no pass of its own for the old log-probs: they are those it starts from."""

import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.algorithm import Scores
from algorithms.figures import Mean, Most, Sum, Tallies
from algorithms.grpo import Grpo
from algorithms.policy_gradient import AlgorithmSection
from algorithms.policy_objective import PolicyObjective
from algorithms.records import Sequence, TrainSample
from algorithms.reinforce_pp import ReinforcePp
from algorithms.sft import CrossEntropy


def _samples(old: list[np.ndarray | None]) -> list[TrainSample]:
    """Two samples of 3 and 2 action tokens behind prompts of 2; the engine left one token without a log-prob."""
    rng, samples = np.random.default_rng(0), []
    for index, length in enumerate((5, 4)):
        rollout = rng.normal(-1.0, 0.1, length).astype(np.float32)
        rollout[-1] = -np.inf if index else rollout[-1]
        samples.append(
            TrainSample(
                sequence=Sequence(
                    uid=str(index), sample_index=0, input_ids=np.zeros(length, np.int64), prompt_len=2, media=()
                ),
                loss_weight=np.ones(length),
                advantages=rng.normal(size=length).astype(np.float32),
                old_logprobs=old[index],
                rollout_logprobs=rollout,
            )
        )
    return samples


def _objective(**chosen: Any) -> PolicyObjective:
    section = AlgorithmSection(**{"preclip_min": None, "preclip_max": None, **chosen})
    objective = ReinforcePp("reinforce_pp", {"algorithm": section}).objective()
    assert isinstance(objective, PolicyObjective)
    return objective


def _loss(samples: list[TrainSample], correction: str) -> tuple[Tensor, Tensor, Tallies]:
    logprobs = torch.linspace(-2.0, -0.5, 5).requires_grad_()
    objective = _objective(correction=correction)
    scores = Scores(logprobs.split([3, 2]), entropy=torch.zeros(5), greedy=torch.zeros(5, dtype=torch.bool))
    loss = objective(scores, samples)
    loss.losses.sum().backward()
    assert logprobs.grad is not None
    return loss.losses.detach(), logprobs.grad, loss.figures


@pytest.mark.parametrize("correction", ["none", "token_truncate", "sequence_mask"])
def test_old_log_probs_of_the_update_itself_are_those_a_pass_before_it_would_give(correction: str) -> None:
    now = torch.linspace(-2.0, -0.5, 5).numpy()
    known: list[np.ndarray | None] = [np.append([0.0, 0.0], now[:3]), np.append([0.0, 0.0], now[3:])]
    wanted, gradient, _ = _loss(_samples(known), correction)
    found, own_gradient, figures = _loss(_samples([None, None]), correction)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(own_gradient, gradient)
    engine = np.concatenate([s.rollout_logprobs[2:] for s in _samples([None, None])])[:4]
    gaps = np.abs(now[:4] - engine)
    mean, most = figures["mismatch/logprob_abs_mean"], figures["mismatch/logprob_abs_max"]
    assert isinstance(mean, Mean) and (mean.total, mean.count) == (pytest.approx(gaps.sum()), 4)
    assert isinstance(most, Most) and most.total == pytest.approx(gaps.max())
    assert figures["mismatch/nonfinite_tokens"] == Sum(1)


def test_a_correction_weighs_the_losses_and_tells_what_it_dropped() -> None:
    # Ratios of trainer over engine in the one sample 1, 2 and 4, in the other 1/2 and one that nobody knows.
    old = [np.array([0, 0, -1, -1, -1], np.float32), np.array([0, 0, -1, -1], np.float32)]
    gaps = [np.log([1, 1, 1, 2, 4]), np.log([1, 1, 0.5, 1])]
    samples = [
        replace(s, rollout_logprobs=(o - g).astype(np.float32), advantages=np.ones_like(o))
        for s, o, g in zip(_samples(list(old)), old, gaps, strict=True)
    ]
    samples[1].rollout_logprobs[-1] = np.nan
    scores = Scores(torch.full((5,), -1.0).split([3, 2]), entropy=torch.zeros(5))
    found = _objective(correction="token_mask", correction_min=0.75, correction_max=3.0)(scores, samples)
    # Ratio 1 to the old policy, so each loss is minus the weight.
    torch.testing.assert_close(found.losses, torch.tensor([-3.0, 0.0]))
    mean, dropped = found.figures["mismatch/weight_mean"], found.figures["mismatch/dropped_frac"]
    assert isinstance(mean, Mean) and (mean.total, mean.count) == (pytest.approx(3.0), 5)
    assert dropped == Mean(3.0, 5)


def test_bad_answers_that_the_policy_has_left_are_not_learned_from() -> None:
    # The engine found every token 1 nat likelier than the policy does by now.
    old = [np.array([0, 0, 0, 0, 0], np.float32), np.array([0, 0, 0, 0], np.float32)]
    samples = [
        replace(s, rollout_logprobs=o, advantages=np.full_like(o, sign))
        for s, o, sign in zip(_samples(list(old)), old, (-1, 1), strict=True)
    ]
    scores = Scores(torch.full((5,), -1.0).split([3, 2]), entropy=torch.zeros(5))
    for bound, bad in ((0.9, 0.0), (1.1, 3 * 0.8)):
        found = _objective(off_policy_max_kl=bound)(scores, samples)
        torch.testing.assert_close(found.losses, torch.tensor([bad, -2 * math.exp(-1.0)]))


def test_a_kl_of_the_loss_is_added_unweighted() -> None:
    chosen = {"kl_coef": 0.5, "kl_estimator": "k3", "correction": "token_mask"}
    samples = [
        replace(s, ref_logprobs=np.full(len(s.advantages), -1.5, np.float32), advantages=np.zeros_like(s.advantages))
        for s in _samples([None, None])
    ]
    scores = Scores(torch.full((5,), -1.0).split([3, 2]), entropy=torch.zeros(5))
    found = Grpo("grpo", {"algorithm": AlgorithmSection(**chosen)}).objective()(scores, samples)
    # d = 1/2 a token: e^-1/2 - 1 + 1/2.
    k3 = math.exp(-0.5) - 0.5
    torch.testing.assert_close(found.losses, torch.tensor([3 * 0.5 * k3, 2 * 0.5 * k3]))


def test_an_objective_travels_to_the_workers_as_it_is() -> None:
    clipped = _objective(clip_low=0.1, clip_high=0.3, preclip_min=0.5, preclip_max=2.0)
    again = pickle.loads(pickle.dumps(clipped))  # noqa: S301
    assert (again.algorithm.name, again.algorithm.settings) == ("reinforce_pp", clipped.algorithm.settings)
    assert pickle.loads(pickle.dumps(CrossEntropy())) == CrossEntropy()  # noqa: S301


def test_figures_count_the_tokens_that_the_loss_counts() -> None:
    # Five tokens at log-prob -1, the first of no weight: ratios 1, e (beyond both bounds), 1/e (below), 1.
    base = _samples([np.zeros(5, np.float32), np.zeros(4, np.float32)])
    old = [np.array([0, 0, -1, -1, -2], np.float32), np.array([0, 0, 0, -1], np.float32)]
    weights = [np.array([0, 0, 0, 0.25, 0.25]), np.array([0, 0, 0.25, 0.25])]
    samples = [
        replace(s, old_logprobs=o, loss_weight=w, advantages=np.ones(len(w), np.float32))
        for s, o, w in zip(base, old, weights, strict=True)
    ]
    logprobs, entropy = torch.full((5,), -1.0), torch.tensor([9.0, 1.0, 2.0, 3.0, 4.0])
    scores = Scores(logprobs.split([3, 2]), entropy=entropy, greedy=torch.tensor([True, True, False, True, True]))
    objective = _objective(preclip_min=0.5, preclip_max=2.0)
    assert objective(scores, samples).figures == {
        "policy/entropy": Mean(10.0, 4),
        "policy/preclip_frac": Mean(2.0, 4),
        "policy/clip_frac": Mean(1.0, 4),
        "mismatch/weight_mean": Mean(4.0, 4),
        "mismatch/dropped_frac": Mean(0.0, 4),
    }
    assert CrossEntropy()(scores, samples).figures == {
        "policy/entropy": Mean(10.0, 4),
        "policy/token_accuracy": Mean(3.0, 4),
    }
    torch.testing.assert_close(CrossEntropy()(scores, samples).losses, torch.tensor([0.5, 0.5]))
