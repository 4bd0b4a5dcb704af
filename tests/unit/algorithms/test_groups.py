"""Groups carry each pair's share of the whole step, whatever they are cut into."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms.groups import PairGroup, score_ratios
from algorithms.kto import LabelGroup, mismatched_sequences
from algorithms.kto_pair import coupled
from algorithms.maths.preference_losses import kto_pair_loss
from algorithms.records import Example
from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.microbatches import SampleSize, group_cost, plan_microbatches, plan_samples
from tests.unit.algorithms.asks import Answers, Policy, Rows, learner
from tests.unit.algorithms.examples import PROMPT, example, logprobs

_BETA = 0.3


def _made(algo: str, **settings: Any) -> Any:
    return learner(algo, preference={"beta": _BETA, **settings})


def _pairs(algorithm: Any, examples: list[Example], refs: Rows = (), *, share: bool = True) -> list[PairGroup]:
    return algorithm.groups(examples, Answers(examples, reference=refs, share_prompts=share))


def _labels(algorithm: Any, examples: list[Example], refs: Rows, *, share: bool = True) -> list[LabelGroup]:
    return algorithm.labelled(examples, refs, baseline=0.5, together=share)


def _examples() -> list[Example]:
    return [
        example("a", [[5, 6, 7], [5, 8, 7], [9]], pairs=((0, 1), (0, 2))),
        example("b", [[4, 4], [6, 6, 6]], pairs=((1, 0),)),
    ]


def _loss(algorithm: Any, groups: list[Any], examples: list[Example], rows: Rows) -> tuple[float, list[np.ndarray]]:
    """The objective under these log-probs, and its gradient by every response's log-probs."""
    policy = Policy(examples, rows)
    loss, _ = policy.loss(algorithm, groups)
    loss.backward()
    return float(loss.detach()), policy.gradients()


@pytest.mark.parametrize("algo", ["dpo", "ddpo"])
def test_pairs_apart_learn_what_they_learn_together(algo: str) -> None:
    examples = _examples()
    refs, policy = logprobs(examples, seed=0), logprobs(examples, seed=1)
    algorithm = _made(algo)
    together, apart = _pairs(algorithm, examples, refs), _pairs(algorithm, examples, refs, share=False)
    assert (len(together), len(apart)) == (2, 3)
    loss, gradients = _loss(algorithm, together, examples, policy)
    loss_apart, gradients_apart = _loss(algorithm, apart, examples, policy)
    assert loss == pytest.approx(loss_apart, rel=1e-12)
    for one, other in zip(gradients, gradients_apart, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_every_pair_of_the_step_weighs_the_same() -> None:
    groups = _pairs(_made("dpo"), _examples(), logprobs(_examples(), seed=0))
    np.testing.assert_allclose(np.concatenate([g.weights for g in groups]), 1 / 3)


def test_ddpo_weighs_what_differs_by_pair() -> None:
    (group,) = _pairs(_made("ddpo", ddpo_mode="vl_rlhf"), _examples()[:1], logprobs(_examples()[:1], seed=0))
    # [5 6 7] against [5 8 7]: only the middle differs; against [9]: everything does.
    assert group.score_of.tolist() == [0, 1, 0, 2]
    assert [w[PROMPT:].tolist() for w in group.score_weights] == [[0, 1, 0], [0, 1, 0], [1, 1, 1], [1]]


_COMMON = list(range(10, 22))
_FREQUENT = [30 + number % 30 for number in range(250)]


@pytest.mark.parametrize(
    ("chosen", "rejected", "of_chosen", "of_rejected"),
    [
        pytest.param(_COMMON, [*_COMMON[:4], 9, *_COMMON[5:]], [4], [4], id="substitution"),
        pytest.param(_COMMON, [*_COMMON[:6], 8, 9, *_COMMON[6:]], [], [6, 7], id="insertion in the middle"),
        pytest.param(_COMMON, [8, 9, *_COMMON], [], [0, 1], id="insertion at the start"),
        pytest.param(_COMMON, [*_COMMON, 8, 9], [], [12, 13], id="insertion at the end"),
        pytest.param([8, *_COMMON], _COMMON, [0], [], id="deletion at the start"),
        pytest.param([*_COMMON, 8], _COMMON, [12], [], id="deletion at the end"),
        pytest.param(_FREQUENT, [*_FREQUENT[:100], 9, *_FREQUENT[101:]], [100], [100], id="long and repetitive"),
    ],
)
def test_ddpo_weighs_every_kind_of_correction_whatever_else_is_in_the_step(
    chosen: list[int], rejected: list[int], of_chosen: list[int], of_rejected: list[int]
) -> None:
    """VL-RLHF acceptance 3, the cases of its section 2.5."""
    pair = example("a", [chosen, rejected], pairs=((0, 1),))
    longer = example("b", [[7] * 300, [5] * 310], pairs=((0, 1),))
    for share in (True, False):
        for step in ([pair], [pair, longer], [longer, pair]):
            groups = _pairs(_made("ddpo", ddpo_mode="vl_rlhf"), step, logprobs(step, seed=0), share=share)
            (group,) = (g for g in groups if g.uid == "a")
            found = [np.flatnonzero(w).tolist() for w in group.score_weights]
            assert found == [[PROMPT + i for i in of_chosen], [PROMPT + i for i in of_rejected]]
            np.testing.assert_array_equal([w.sum() for w in group.score_weights], [len(of_chosen), len(of_rejected)])


def test_ipo_compares_means_unless_told_otherwise() -> None:
    for reduction, expected in (("mean", 1 / 3), ("sum", 1.0)):
        one = _examples()[:1]
        (group,) = _pairs(_made("ipo", ipo_reduction=reduction), one, logprobs(one, seed=0))
        assert group.score_weights[0][PROMPT:].tolist() == pytest.approx([expected] * 3)


def test_a_coupled_loss_and_its_gradient_arrive_whole() -> None:
    examples = _examples()
    refs, policy = logprobs(examples, seed=2), logprobs(examples, seed=3)
    algorithm = _made("kto_pair")
    groups = _pairs(algorithm, examples, refs)
    ratios = [score_ratios(g, rows) for g, rows in zip(groups, policy, strict=True)]
    loss, gradients = _loss(algorithm, coupled(groups, ratios, beta=_BETA), examples, policy)

    leaves = [[torch.from_numpy(r).requires_grad_() for r in rows] for rows in policy]
    totals = [
        [leaf.double().sum() - float(r.sum(dtype=np.float64)) for leaf, r in zip(ls, rs, strict=True)]
        for ls, rs in zip(leaves, refs, strict=True)
    ]
    chosen = torch.stack([totals[0][0], totals[0][0], totals[1][1]])
    rejected = torch.stack([totals[0][1], totals[0][2], totals[1][0]])
    wanted = kto_pair_loss(chosen, rejected, beta=_BETA).loss.mean()
    wanted.backward()
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-12)
    for found, leaf in zip(gradients, [leaf for ls in leaves for leaf in ls], strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-5, atol=1e-9)


def test_labels_weigh_by_kind_over_the_whole_step() -> None:
    examples = [
        example("a", [[5, 6], [7]], desirable=(True, False)),
        example("b", [[4]], desirable=(False,)),
    ]
    groups = _labels(_made("kto", desirable_weight=2.0), examples, logprobs(examples, seed=0))
    assert [g.weights.tolist() for g in groups] == [pytest.approx([2 / 3, 1 / 3]), pytest.approx([1 / 3])]


def test_the_baseline_never_meets_siblings() -> None:
    examples = [example("a", [[5, 6], [7]], desirable=(True, False)), example("b", [[4, 4, 4]], desirable=(False,))]
    mixed = mismatched_sequences(examples, longest=1000)
    assert [(s.uid, s.input_ids[PROMPT:].tolist()) for s in mixed] == [
        ("a", [4, 4, 4]),
        ("a", [4, 4, 4]),
        ("b", [5, 6]),
    ]


_STEPS = st.lists(
    st.tuples(st.integers(1, 60), st.lists(st.integers(1, 60), min_size=1, max_size=4)), min_size=2, max_size=6
)


@given(_STEPS, st.booleans(), st.integers(0, 40), st.integers(1, 5))
def test_whatever_kto_needs_of_a_step_fits_the_budget_that_its_responses_fit(
    drawn: list[tuple[int, list[int]]], share: bool, spare: int, ranks: int
) -> None:
    examples = []
    for number, (prompt, lengths) in enumerate(drawn):
        sequences = tuple(
            TokenSequence(uid=str(number), sample_index=k, input_ids=np.arange(prompt + n), prompt_len=prompt, media=())
            for k, n in enumerate(lengths)
        )
        labels = tuple(k % 2 == 0 for k in range(len(lengths)))
        examples.append(Example(uid=str(number), sequences=sequences, pairs=(), desirable=labels, ref_logprobs=None))
    # What an example is let through by: all its responses in one row, or each in its own.
    costs = [group_cost(p, n if share else [max(n)], share_prompts=share) for p, n in drawn]
    budget = max(costs) + spare
    refs = [[np.zeros(len(s.input_ids) - s.prompt_len, np.float32) for s in e.sequences] for e in examples]
    groups = _labels(_made("kto"), examples, refs, share=share)
    assert sum(float(g.weights.sum()) for g in groups) == pytest.approx(1.0)
    of_groups = [
        group_cost(
            g.sequences[0].prompt_len,
            [len(s.input_ids) - s.prompt_len for s in g.sequences],
            share_prompts=share,
        )
        for g in groups
    ]
    plan_microbatches(of_groups, num_ranks=ranks, token_budget=budget)
    mixed = mismatched_sequences(examples, longest=budget)
    plan_samples(
        [SampleSize(s.uid, s.prompt_len, len(s.input_ids)) for s in mixed],
        share_prompts=share,
        num_ranks=ranks,
        token_budget=budget,
    )
    shortest = min(drawn, key=lambda of: of[0])
    assert {s.uid for s in mixed} >= {str(drawn.index(shortest))}


def test_a_stranger_too_long_for_a_prompt_is_passed_for_the_next_that_fits() -> None:
    examples = [
        example("a", [[5]], desirable=(True,)),
        example("b", [[6] * 2], desirable=(False,)),
        example("c", [[7] * 9], desirable=(False,)),
    ]
    mixed = mismatched_sequences(examples, longest=PROMPT + 8)
    assert [(s.uid, s.input_ids[PROMPT:].tolist()) for s in mixed] == [("a", [6, 6]), ("b", [5]), ("c", [6, 6])]
    assert [s.uid for s in mismatched_sequences(examples, longest=PROMPT + 1)] == ["b", "c"]


def test_labels_apart_learn_what_they_learn_together() -> None:
    examples = [
        example("a", [[5, 6], [7], [8, 8, 8]], desirable=(True, False, True)),
        example("b", [[4], [3, 3]], desirable=(False, True)),
    ]
    refs, policy = logprobs(examples, seed=0), logprobs(examples, seed=1)
    algorithm = _made("kto")
    together, apart = _labels(algorithm, examples, refs), _labels(algorithm, examples, refs, share=False)
    assert (len(together), len(apart)) == (2, 5)
    loss, gradients = _loss(algorithm, together, examples, policy)
    loss_apart, gradients_apart = _loss(algorithm, apart, examples, policy)
    assert loss == pytest.approx(loss_apart, rel=1e-12)
    for one, other in zip(gradients, gradients_apart, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_scalar_rewards_are_compared_as_they_are() -> None:
    (group,) = _pairs(_made("scalar_rm"), _examples()[:1])
    assert group.score_weights == ()
    assert score_ratios(group, [np.array([0.5]), np.array([0.25]), np.array([-1.0])]).tolist() == [0.5, 0.25, -1.0]
