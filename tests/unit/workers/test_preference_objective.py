"""Pairs of an instruction learn in one micro-batch as they would one by one; a loss of one's own is one line."""

import math
import pickle
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.algorithm import Loss, Scores
from algorithms.figures import added, values
from algorithms.groups import PairGroup
from algorithms.maths.preference_losses import dpo_loss
from algorithms.preference import Preference, PreferenceSection
from algorithms.records import Sequence
from tests.unit.algorithms.asks import Answers, Policy, learner
from tests.unit.algorithms.examples import example, logprobs

_PROMPT = 3


class Exponential(Preference):
    """A pair loss that is in no repository: exp(−β δ), as in AdaBoost."""

    def pair_loss(self, chosen: Tensor, rejected: Tensor, betas: Tensor) -> Tensor:
        """All that there is to write."""
        return (-betas * (chosen - rejected)).exp()


def _group(uid: str, lengths: list[int], *, ref: list[float] | None = None, num_global: int = 1) -> PairGroup:
    """Earlier responses are preferred to later ones; scores are sums over the response."""
    sequences = tuple(
        Sequence(uid=uid, sample_index=k, input_ids=np.arange(_PROMPT + n), prompt_len=_PROMPT, media=())
        for k, n in enumerate(lengths)
    )
    pairs = np.array(list(combinations(range(len(lengths)), 2)))
    return PairGroup(
        sequences=sequences,
        score_of=np.arange(len(lengths)),
        score_weights=tuple(np.append(np.zeros(_PROMPT), np.ones(n)).astype(np.float32) for n in lengths),
        ref_scores=np.array(ref if ref is not None else [0.0] * len(lengths)),
        pairs=pairs,
        weights=np.full(len(pairs), 1.0 / num_global),
        betas=np.full(len(pairs), 0.3),
    )


def _logprobs(lengths: list[int], seed: int) -> Tensor:
    return (-torch.rand(sum(lengths), generator=torch.Generator().manual_seed(seed))).requires_grad_()


def _loss(groups: list[PairGroup], logprobs: Tensor, algorithm: Any = None) -> Loss:
    lengths = [len(s.input_ids) - _PROMPT for g in groups for s in g.sequences]
    algorithm = algorithm or learner("dpo")
    return algorithm.objective()(Scores(logprobs=logprobs.split(lengths)), groups)


@pytest.mark.parametrize(
    ("algorithm", "constant"),
    [
        (learner("dpo"), math.log(2)),
        (learner("hinge"), 1.0),
        (learner("ipo", preference={"ipo_reduction": "sum"}), (0.5 / 0.3) ** 2),
        (Exponential("exponential", {"preference": PreferenceSection()}), 1.0),
    ],
    ids=["dpo", "hinge", "ipo", "of one's own"],
)
def test_a_policy_equal_to_its_reference_has_margin_0_and_the_loss_of_indifference(
    algorithm: Preference, constant: float
) -> None:
    lengths = [4, 2, 7]
    logprobs = _logprobs(lengths, 0)
    ref = [float(part.double().sum()) for part in logprobs.detach().split(lengths)]
    learned = _loss([_group("a", lengths, ref=ref, num_global=3)], logprobs, algorithm)
    told = values(learned.figures)
    assert float(learned.losses.sum().detach()) == pytest.approx(constant, abs=1e-5)
    assert told["preference/margin"] == pytest.approx(0.0, abs=1e-5)
    assert (told["preference/num_pairs"], told["preference/accuracy"]) == (3, 0)


def test_four_responses_are_six_pairs_with_the_gradient_of_each_one_alone() -> None:
    lengths = [3, 5, 1, 2]
    logprobs = _logprobs(lengths, 1)
    learned = _loss([_group("a", lengths, ref=[-1.0, -2.0, -0.5, -1.5], num_global=6)], logprobs)
    learned.losses.sum().backward()
    assert logprobs.grad is not None
    again = logprobs.detach().clone().requires_grad_()
    ratios = torch.stack([p.sum() for p in again.split(lengths)]) - torch.tensor([-1.0, -2.0, -0.5, -1.5])
    alone = [
        dpo_loss(ratios[i : i + 1], ratios[j : j + 1], kind="sigmoid", beta=0.3) for i, j in combinations(range(4), 2)
    ]
    wanted = torch.stack([pair.loss.sum() for pair in alone]).mean()
    wanted.backward()
    assert again.grad is not None
    torch.testing.assert_close(learned.losses.sum().float(), wanted)
    torch.testing.assert_close(logprobs.grad, again.grad)
    told = values(learned.figures)
    assert told["preference/accuracy"] == sum(int(pair.correct.sum()) for pair in alone) / 6
    assert told["preference/margin"] == pytest.approx(sum(float(pair.margin.sum()) for pair in alone) / 6, rel=1e-5)


def test_micro_batches_add_up_to_the_batch() -> None:
    groups = [_group("a", [3, 2], num_global=4), _group("b", [2, 4, 1], num_global=4)]
    logprobs = _logprobs([3, 2, 2, 4, 1], 2)
    whole, first, second = (
        _loss(of, part) for of, part in ((groups, logprobs), (groups[:1], logprobs[:5]), (groups[1:], logprobs[5:]))
    )
    torch.testing.assert_close(whole.losses.sum(), first.losses.sum() + second.losses.sum())
    told, parts = values(whole.figures), values(added((first.figures, second.figures)))
    assert told == pytest.approx(parts) and told["preference/num_pairs"] == 4


def test_the_loss_of_a_group_that_is_not_finite_is_not_and_the_others_are() -> None:
    groups = [_group("fine", [2, 2]), _group("broken", [2, 2], ref=[math.inf, 0.0])]
    assert torch.isfinite(_loss(groups, _logprobs([2, 2, 2, 2], 3)).losses).tolist() == [True, False]


def test_a_loss_of_ones_own_is_one_line_and_has_samples_figures_and_evaluation() -> None:
    algorithm = Exponential("exponential", {"preference": PreferenceSection(beta=0.5)})
    examples = [example("a", [[5, 6], [7]], pairs=((0, 1),)), example("b", [[8], [9, 9]], pairs=((1, 0),))]
    refs, rows = logprobs(examples, seed=0), logprobs(examples, seed=1)
    ask, policy = Answers(examples, policy=rows, reference=refs), Policy(examples, rows, dtype=torch.float64)
    (groups,) = algorithm.samples(examples, ask).updates
    # Workers are given it whole.
    objective = pickle.loads(pickle.dumps(algorithm.objective()))  # noqa: S301
    pieces = tuple(policy.rows[s.uid, s.sample_index] for g in groups for s in g.sequences)
    learned = objective(Scores(logprobs=pieces), groups)
    gaps = [
        sum(sign * float((p - r).sum(dtype=np.float64)) for sign, p, r in zip(signs, of, ref, strict=True))
        for signs, of, ref in zip(((1, -1), (-1, 1)), rows, refs, strict=True)
    ]
    assert float(learned.losses.sum().detach()) == pytest.approx(
        sum(math.exp(-0.5 * gap) for gap in gaps) / 2, rel=1e-6
    )
    told = values(learned.figures) | algorithm.evaluate(algorithm.prepared(examples, ask), ask)
    margin = pytest.approx(0.5 * sum(gaps) / 2, rel=1e-6)
    assert told["preference/margin"] == margin and told["eval/margin"] == margin
    assert told.keys() <= {figure.name for figure in algorithm.figures}
