"""A step of MM-DPO is the paper's loss on the same numbers, whole or in groups: pairs with a β each, and imitation."""

import math
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.groups import PairGroup, pair_margins, score_ratios
from algorithms.maths.aggregation import response_weights
from algorithms.mm_dpo import MmDpoSection
from algorithms.records import Example
from tests.unit.algorithms.asks import Answers, Policy, Rows, learner
from tests.unit.algorithms.examples import example, logprobs

_MODES: tuple[tuple[Literal["token", "response"], Literal["token-mean", "seq-mean-token-mean"]], ...] = (
    ("token", "token-mean"),
    ("response", "seq-mean-token-mean"),
)


def _examples() -> list[Example]:
    """Responses that are chosen three times, twice, once and never; every pair with a β of its own."""
    pairs = {"a": ((0, 1), (0, 2), (0, 3), (1, 3), (2, 3)), "b": ((1, 0),)}
    betas = {"a": (0.1, 0.125, 0.15, 0.1, 0.14), "b": (0.13,)}
    lengths = {"a": (2, 5, 3, 4), "b": (6, 1)}
    plain = [example(uid, [range(9, 9 + n) for n in lengths[uid]], pairs=pairs[uid]) for uid in "ab"]
    return [replace(e, betas=betas[e.uid]) for e in plain]


def _made(**settings: Any) -> Any:
    return learner("mm_dpo", preference={"beta": 0.1}, mm_dpo=settings)


def _groups(algorithm: Any, examples: list[Example], refs: Rows, *, share: bool = True) -> list[PairGroup]:
    return algorithm.groups(examples, Answers(examples, reference=refs, share_prompts=share))


def _policy(examples: list[Example], rows: Rows) -> Policy:
    return Policy(examples, rows, dtype=torch.float64)


def _by_hand(
    examples: Seq[Example],
    policy: Policy,
    refs: Seq[Seq[np.ndarray]],
    settings: MmDpoSection,
    mode: Literal["token-mean", "seq-mean-token-mean"],
) -> Tensor:
    keys = list(policy.rows)
    sums = torch.stack([policy.rows[key].sum() for key in keys])
    ratios = sums - torch.tensor([float(r.sum(dtype=np.float64)) for of in refs for r in of], dtype=torch.float64)
    pairs = [(keys.index((e.uid, c)), keys.index((e.uid, r))) for e in examples for c, r in e.pairs]
    betas = torch.tensor([beta for e in examples for beta in e.betas], dtype=torch.float64)
    chosen, rejected = (torch.tensor(side) for side in zip(*pairs, strict=True))
    times = torch.bincount(chosen, minlength=len(keys))
    repeats = times.clamp(max=1) if settings.sft_once else times
    num_tokens = torch.tensor([len(policy.rows[key]) for key in keys])
    weights = response_weights(
        num_tokens,
        repeats,
        mode=mode,
        global_num_sequences=int(repeats.sum()),
        global_num_tokens=int((repeats * num_tokens).sum()),
    )
    of_pairs = -logsigmoid(betas * (ratios[chosen] - ratios[rejected])).mean()
    return of_pairs - settings.sft_weight * (weights.double() * sums).sum()


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("once", [False, True], ids=["for-each-pair", "once"])
@pytest.mark.parametrize(("mean", "mode"), _MODES, ids=["token", "response"])
def test_a_step_is_the_loss_of_the_paper(
    share: bool,
    once: bool,
    mean: Literal["token", "response"],
    mode: Literal["token-mean", "seq-mean-token-mean"],
) -> None:
    examples, algorithm = _examples(), _made(sft_weight=0.75, sft_mean=mean, sft_once=once)
    refs, rows = logprobs(examples, seed=0), logprobs(examples, seed=1)
    policy = _policy(examples, rows)
    wanted = _by_hand(examples, policy, refs, algorithm.mm_dpo, mode)
    wanted.backward()
    by_hand = policy.gradients()
    groups = _groups(algorithm, examples, refs, share=share)
    assert len(groups) == (2 if share else 6)
    # In micro-batches that add up.
    losses = [policy.loss(algorithm, part)[0] for part in (groups[::2], groups[1::2])]
    for loss in losses:
        loss.backward()
    # The weights of responses are float32 where they are made.
    assert sum(float(loss.detach()) for loss in losses) == pytest.approx(float(wanted.detach()), rel=1e-6)
    for found, expected in zip(policy.gradients(), by_hand, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
def test_the_cross_entropy_is_told_apart_from_the_rest(share: bool) -> None:
    examples, imitating, comparing = _examples(), _made(sft_weight=0.5), _made(sft_weight=0.0)
    refs, rows = logprobs(examples, seed=0), logprobs(examples, seed=1)
    policy = _policy(examples, rows)
    both, of_both = policy.loss(imitating, _groups(imitating, examples, refs, share=share))
    pairs, of_pairs = policy.loss(comparing, _groups(comparing, examples, refs, share=share))
    told = of_both["policy/imitation_loss"]
    assert told == pytest.approx(float((both - pairs).detach()), rel=1e-9)
    assert "policy/imitation_loss" not in of_pairs
    times = [3, 1, 1, 0, 0, 1]  # as often as each is chosen
    flat = [row for of in rows for row in of]
    nll = -sum(t * float(row.sum()) for t, row in zip(times, flat, strict=True))
    num_tokens = sum(t * len(row) for t, row in zip(times, flat, strict=True))
    assert told == pytest.approx(0.5 * nll / num_tokens, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_policy_that_is_its_reference_pays_ln_2_whatever_beta(scale: float) -> None:
    """MM-RLHF T1."""
    examples = [replace(e, betas=tuple(scale * beta for beta in e.betas)) for e in _examples()]
    refs = logprobs(examples, seed=0)
    policy, algorithm = _policy(examples, refs), _made(sft_weight=0.0)
    groups = _groups(algorithm, examples, refs)
    rows = [[policy.rows[s.uid, s.sample_index].detach().numpy() for s in g.sequences] for g in groups]
    margins = pair_margins(groups, [score_ratios(g, of) for g, of in zip(groups, rows, strict=True)])
    assert not np.concatenate(margins).any(), "z is 0, not nearly"
    loss, told = policy.loss(algorithm, groups)
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-12 * max(1.0, scale))
    assert (told["preference/num_pairs"], told["preference/accuracy"]) == (6, 0)


def test_exchanging_chosen_and_rejected_negates_the_margin_and_mirrors_the_loss() -> None:
    """MM-RLHF T12: −log σ(−x) = −log σ(x) + x."""
    examples = _examples()
    turned = [replace(e, pairs=tuple(pair[::-1] for pair in e.pairs)) for e in examples]
    refs, rows = logprobs(examples, seed=0), logprobs(examples, seed=1)
    policy, algorithm = _policy(examples, rows), _made(sft_weight=0.0)
    first, of_first = policy.loss(algorithm, _groups(algorithm, examples, refs))
    second, of_second = policy.loss(algorithm, _groups(algorithm, turned, refs))
    margin = of_first["preference/margin"]
    assert of_second["preference/margin"] == pytest.approx(-margin, rel=1e-12)
    assert float(second.detach()) == pytest.approx(float(first.detach()) + margin, rel=1e-12)


def test_the_implicit_beta_is_that_of_the_step_and_not_of_a_group() -> None:
    examples = _examples()
    refs, rows = logprobs(examples, seed=0), logprobs(examples, seed=1)
    algorithm = _made(beta_mode="batch_implicit", margin_weight=0.1)
    shared, apart = (
        algorithm.samples(examples, Answers(examples, policy=rows, reference=refs, share_prompts=share))
        for share in (True, False)
    )
    (groups,), (groups_apart,) = shared.updates, apart.updates
    beta = shared.figures["beta/mean"]
    assert beta == shared.figures["beta/max"] == apart.figures["beta/mean"]
    assert {b for g in groups for b in g.betas} == {beta}
    assert all(g.imitation for g in groups), "what is imitated stays"
    policy = _policy(examples, rows)
    losses = [float(policy.loss(algorithm, of)[0].detach()) for of in (groups, groups_apart)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
