"""Pairs of an instruction learn in one micro-batch as they would one by one."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor
from workers.objectives import LossSpec, UpdateStats
from workers.preference_objective import preference_objective

from algorithms.maths.preference_losses import DpoKind, dpo_loss
from algorithms.records import PairTerms, PreferenceGroup, Sequence

_PROMPT = 3


def _group(uid: str, lengths: list[int], *, ref: list[float] | None = None, num_global: int = 1) -> PreferenceGroup:
    """Earlier responses are preferred to later ones; scores are sums over the response."""
    sequences = tuple(
        Sequence(uid=uid, sample_index=k, input_ids=np.arange(_PROMPT + n), prompt_len=_PROMPT, media=())
        for k, n in enumerate(lengths)
    )
    pairs = np.array(list(combinations(range(len(lengths)), 2)))
    return PreferenceGroup(
        sequences=sequences,
        score_of=np.arange(len(lengths)),
        score_weights=tuple(np.append(np.zeros(_PROMPT), np.ones(n)).astype(np.float32) for n in lengths),
        ref_scores=np.array(ref if ref is not None else [0.0] * len(lengths)),
        terms=PairTerms(pairs=pairs, weights=np.full(len(pairs), 1.0 / num_global), betas=np.full(len(pairs), 0.3)),
    )


def _logprobs(lengths: list[int], seed: int) -> Tensor:
    return (-torch.rand(sum(lengths), generator=torch.Generator().manual_seed(seed))).requires_grad_()


def _loss(groups: list[PreferenceGroup], logprobs: Tensor, kind: DpoKind = "sigmoid") -> tuple[Tensor, UpdateStats]:
    lengths = [len(s.input_ids) - _PROMPT for g in groups for s in g.sequences]
    stats = UpdateStats()
    spec = LossSpec(kind="preference", pair_kind=kind)
    return preference_objective(groups, spec, stats, logprobs=logprobs.split(lengths)), stats


@pytest.mark.parametrize(
    ("kind", "constant"), [("sigmoid", math.log(2)), ("hinge", 1.0), ("ipo_sum", (0.5 / 0.3) ** 2)]
)
def test_a_policy_equal_to_its_reference_has_margin_0_and_the_loss_of_indifference(
    kind: DpoKind, constant: float
) -> None:
    lengths = [4, 2, 7]
    logprobs = _logprobs(lengths, 0)
    ref = [float(part.double().sum()) for part in logprobs.detach().split(lengths)]
    loss, stats = _loss([_group("a", lengths, ref=ref, num_global=3)], logprobs, kind)
    assert float(loss.detach()) == pytest.approx(constant, abs=1e-5)
    assert stats.margin_sum == pytest.approx(0.0, abs=1e-5)
    assert (stats.num_pairs, stats.num_correct) == (3, 0)


def test_four_responses_are_six_pairs_with_the_gradient_of_each_one_alone() -> None:
    lengths = [3, 5, 1, 2]
    logprobs = _logprobs(lengths, 1)
    loss, stats = _loss([_group("a", lengths, ref=[-1.0, -2.0, -0.5, -1.5], num_global=6)], logprobs)
    loss.backward()
    assert logprobs.grad is not None
    again = logprobs.detach().clone().requires_grad_()
    ratios = torch.stack([p.sum() for p in again.split(lengths)]) - torch.tensor([-1.0, -2.0, -0.5, -1.5])
    alone = [
        dpo_loss(ratios[i : i + 1], ratios[j : j + 1], kind="sigmoid", beta=0.3) for i, j in combinations(range(4), 2)
    ]
    wanted = torch.stack([pair.loss.sum() for pair in alone]).mean()
    wanted.backward()
    assert again.grad is not None
    torch.testing.assert_close(loss.float(), wanted)
    torch.testing.assert_close(logprobs.grad, again.grad)
    assert stats.num_correct == sum(int(pair.correct.sum()) for pair in alone)
    assert stats.margin_sum == pytest.approx(sum(float(pair.margin.sum()) for pair in alone), rel=1e-5)


def test_micro_batches_add_up_to_the_batch() -> None:
    groups = [_group("a", [3, 2], num_global=4), _group("b", [2, 4, 1], num_global=4)]
    logprobs = _logprobs([3, 2, 2, 4, 1], 2)
    whole, of_whole = _loss(groups, logprobs)
    first, of_first = _loss(groups[:1], logprobs[:5])
    second, of_second = _loss(groups[1:], logprobs[5:])
    torch.testing.assert_close(whole, first + second)
    assert of_whole.loss == pytest.approx(of_first.loss + of_second.loss)
    assert of_whole.num_pairs == of_first.num_pairs + of_second.num_pairs == 4


def test_a_group_that_is_not_finite_is_named() -> None:
    groups = [_group("fine", [2, 2]), _group("broken", [2, 2], ref=[math.inf, 0.0])]
    _, stats = _loss(groups, _logprobs([2, 2, 2, 2], 3))
    assert stats.nonfinite == ("broken",)
