"""The first update after a rollout needs no pass of its own for the old log-probs: they are those it starts from."""

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.maths.logprobs import TokenScores
from algorithms.records import Sequence, TrainSample
from workers.objectives import LossSpec, UpdateStats, token_objective


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


def _loss(samples: list[TrainSample], tis_cap: float | None) -> tuple[Tensor, Tensor, UpdateStats]:
    logprobs = torch.linspace(-2.0, -0.5, 5).requires_grad_()
    stats = UpdateStats()
    spec = LossSpec(kind="policy_gradient", tis_cap=tis_cap)
    scores = TokenScores(logprobs, torch.zeros(5), torch.zeros(5, dtype=torch.bool))
    loss = token_objective(samples, logprobs.split([3, 2]), scores, spec, stats)
    loss.backward()
    assert logprobs.grad is not None
    return loss.detach(), logprobs.grad, stats


@pytest.mark.parametrize("tis_cap", [None, 2.0])
def test_old_log_probs_of_the_update_itself_are_those_a_pass_before_it_would_give(tis_cap: float | None) -> None:
    now = torch.linspace(-2.0, -0.5, 5).numpy()
    known: list[np.ndarray | None] = [np.append([0.0, 0.0], now[:3]), np.append([0.0, 0.0], now[3:])]
    wanted, gradient, _ = _loss(_samples(known), tis_cap)
    found, own_gradient, stats = _loss(_samples([None, None]), tis_cap)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(own_gradient, gradient)
    engine = np.concatenate([s.rollout_logprobs[2:] for s in _samples([None, None])])[:4]
    gaps = np.abs(now[:4] - engine)
    assert (stats.gap_sum, stats.gap_max) == (pytest.approx(gaps.sum()), pytest.approx(gaps.max()))
    assert stats.num_unscored == 1
