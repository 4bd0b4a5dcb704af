"""The first update after a rollout needs no pass of its own for the old log-probs: they are those it starts from."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.algorithm import Scores
from algorithms.figures import Mean, Most, Sum, Tallies
from algorithms.policy_gradient import ClippedObjective
from algorithms.records import Sequence, TrainSample
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


def _loss(samples: list[TrainSample], tis_cap: float | None) -> tuple[Tensor, Tensor, Tallies]:
    logprobs = torch.linspace(-2.0, -0.5, 5).requires_grad_()
    objective = ClippedObjective(clip_low=0.2, clip_high=0.2, tis_cap=tis_cap)
    scores = Scores(logprobs.split([3, 2]), entropy=torch.zeros(5), greedy=torch.zeros(5, dtype=torch.bool))
    loss = objective(scores, samples)
    loss.losses.sum().backward()
    assert logprobs.grad is not None
    return loss.losses.detach(), logprobs.grad, loss.figures


@pytest.mark.parametrize("tis_cap", [None, 2.0])
def test_old_log_probs_of_the_update_itself_are_those_a_pass_before_it_would_give(tis_cap: float | None) -> None:
    now = torch.linspace(-2.0, -0.5, 5).numpy()
    known: list[np.ndarray | None] = [np.append([0.0, 0.0], now[:3]), np.append([0.0, 0.0], now[3:])]
    wanted, gradient, _ = _loss(_samples(known), tis_cap)
    found, own_gradient, figures = _loss(_samples([None, None]), tis_cap)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(own_gradient, gradient)
    engine = np.concatenate([s.rollout_logprobs[2:] for s in _samples([None, None])])[:4]
    gaps = np.abs(now[:4] - engine)
    mean, most = figures["mismatch/logprob_abs_mean"], figures["mismatch/logprob_abs_max"]
    assert isinstance(mean, Mean) and (mean.total, mean.count) == (pytest.approx(gaps.sum()), 4)
    assert isinstance(most, Most) and most.total == pytest.approx(gaps.max())
    assert figures["mismatch/nonfinite_tokens"] == Sum(1)


def test_an_objective_travels_to_the_workers_as_it_is() -> None:
    for objective in (ClippedObjective(clip_low=0.1, clip_high=0.3, preclip_min=0.5, preclip_max=2.0), CrossEntropy()):
        assert pickle.loads(pickle.dumps(objective)) == objective  # noqa: S301


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
    objective = ClippedObjective(clip_low=0.2, clip_high=0.2, preclip_min=0.5, preclip_max=2.0)
    assert objective(scores, samples).figures == {
        "policy/entropy": Mean(10.0, 4),
        "policy/preclip_frac": Mean(2.0, 4),
        "policy/clip_frac": Mean(1.0, 4),
    }
    assert CrossEntropy()(scores, samples).figures == {
        "policy/entropy": Mean(10.0, 4),
        "policy/token_accuracy": Mean(3.0, 4),
    }
    torch.testing.assert_close(CrossEntropy()(scores, samples).losses, torch.tensor([0.5, 0.5]))
