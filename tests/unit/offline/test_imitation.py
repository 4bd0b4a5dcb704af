"""A step of MM-DPO is ``mm_dpo_loss`` on the same numbers, whole or in groups: pairs with a β each, and imitation."""

import math
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from workers.objectives import LossSpec, UpdateStats

from algorithms.maths.aggregation import response_weights
from algorithms.maths.mm_dpo import mm_dpo_loss
from algorithms.mm_dpo import MmDpoSection
from algorithms.preference import PreferenceSection
from algorithms.preference_registry import PREFERENCE_ALGORITHMS
from algorithms.records import Example, PairTerms, PreferenceGroup
from orchestrator.data.pair_betas import step_beta
from orchestrator.training.groups import GroupMaker, score_ratios, with_beta
from orchestrator.training.held_out import pair_margins
from tests.unit.offline.examples import example, logprobs
from workers.preference_objective import preference_objective

_SPEC = LossSpec(kind="preference")
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


def _maker(*, share: bool, imitate: MmDpoSection | None) -> GroupMaker:
    algorithm = PREFERENCE_ALGORITHMS["mm_dpo"]
    return GroupMaker(algorithm, PreferenceSection(beta=0.1), share_prompts=share, imitate=imitate)


class _Policy:
    """Log-probs of every response, leaves of the gradient."""

    def __init__(self, examples: Seq[Example], rows: Seq[Seq[np.ndarray]]) -> None:
        self.rows = {
            (e.uid, s.sample_index): torch.from_numpy(row.astype(np.float64)).requires_grad_()
            for e, of in zip(examples, rows, strict=True)
            for s, row in zip(e.sequences, of, strict=True)
        }

    def objective(self, groups: Seq[PreferenceGroup], stats: UpdateStats | None = None) -> Tensor:
        pieces = [self.rows[s.uid, s.sample_index] for g in groups for s in g.sequences]
        return preference_objective(groups, _SPEC, stats or UpdateStats(), logprobs=pieces)

    def gradients(self) -> list[np.ndarray]:
        found = [np.zeros(r.shape) if r.grad is None else r.grad.numpy().copy() for r in self.rows.values()]
        for row in self.rows.values():
            row.grad = None
        return found


def _by_hand(
    examples: Seq[Example],
    policy: _Policy,
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
    return mm_dpo_loss(
        ratios[chosen],
        ratios[rejected],
        sums,
        betas=betas,
        pair_weights=torch.full_like(betas, 1 / len(pairs)),
        sft_weights=weights.double(),
        sft_coef=settings.sft_weight,
    ).loss


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("once", [False, True], ids=["for-each-pair", "once"])
@pytest.mark.parametrize(("mean", "mode"), _MODES, ids=["token", "response"])
def test_a_step_is_the_loss_of_the_paper(
    share: bool,
    once: bool,
    mean: Literal["token", "response"],
    mode: Literal["token-mean", "seq-mean-token-mean"],
) -> None:
    examples, settings = _examples(), MmDpoSection(sft_weight=0.75, sft_mean=mean, sft_once=once)
    refs, rows = logprobs(examples, seed=0), logprobs(examples, seed=1)
    policy = _Policy(examples, rows)
    wanted = _by_hand(examples, policy, refs, settings, mode)
    wanted.backward()
    by_hand = policy.gradients()
    groups = _maker(share=share, imitate=settings).pairs(examples, refs)
    assert len(groups) == (2 if share else 6)
    # In micro-batches that add up.
    losses = [policy.objective(groups[::2]), policy.objective(groups[1::2])]
    for loss in losses:
        loss.backward()
    # The weights of responses are float32 where they are made.
    assert sum(float(loss.detach()) for loss in losses) == pytest.approx(float(wanted.detach()), rel=1e-6)
    for found, expected in zip(policy.gradients(), by_hand, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
def test_the_cross_entropy_is_told_apart_from_the_rest(share: bool) -> None:
    examples, settings = _examples(), MmDpoSection(sft_weight=0.5)
    refs, rows = logprobs(examples, seed=0), logprobs(examples, seed=1)
    policy, of_both, of_pairs = _Policy(examples, rows), UpdateStats(), UpdateStats()
    both = policy.objective(_maker(share=share, imitate=settings).pairs(examples, refs), of_both)
    pairs = policy.objective(_maker(share=share, imitate=None).pairs(examples, refs), of_pairs)
    assert of_both.imitation_loss == pytest.approx(float((both - pairs).detach()), rel=1e-9)
    assert of_pairs.imitation_loss == 0.0
    times = [3, 1, 1, 0, 0, 1]  # as often as each is chosen
    flat = [row for of in rows for row in of]
    nll = -sum(t * float(row.sum()) for t, row in zip(times, flat, strict=True))
    assert of_both.imitation_loss == pytest.approx(
        0.5 * nll / sum(t * len(row) for t, row in zip(times, flat, strict=True)), rel=1e-6
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_policy_that_is_its_reference_pays_ln_2_whatever_beta(scale: float) -> None:
    """MM-RLHF T1."""
    examples = [replace(e, betas=tuple(scale * beta for beta in e.betas)) for e in _examples()]
    refs = logprobs(examples, seed=0)
    policy, stats = _Policy(examples, refs), UpdateStats()
    groups = _maker(share=True, imitate=None).pairs(examples, refs)
    for group in groups:
        rows = [policy.rows[s.uid, s.sample_index].detach().numpy() for s in group.sequences]
        assert not pair_margins(group, score_ratios(group, rows)).any(), "z is 0, not nearly"
    loss = policy.objective(groups, stats)
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-12 * max(1.0, scale))
    assert (stats.num_pairs, stats.num_correct) == (6, 0)


def test_exchanging_chosen_and_rejected_negates_the_margin_and_mirrors_the_loss() -> None:
    """MM-RLHF T12: −log σ(−x) = −log σ(x) + x."""
    examples = _examples()
    turned = [replace(e, pairs=tuple(pair[::-1] for pair in e.pairs)) for e in examples]
    refs, rows = logprobs(examples, seed=0), logprobs(examples, seed=1)
    policy, of_first, of_second = _Policy(examples, rows), UpdateStats(), UpdateStats()
    maker = _maker(share=True, imitate=None)
    first = policy.objective(maker.pairs(examples, refs), of_first)
    second = policy.objective(maker.pairs(turned, refs), of_second)
    assert of_second.margin_sum == pytest.approx(-of_first.margin_sum, rel=1e-12)
    assert float(second.detach()) == pytest.approx(float(first.detach()) + of_first.margin_sum / 6, rel=1e-12)


def _implicit(examples: Seq[Example], *, share: bool) -> tuple[float, list[PreferenceGroup]]:
    """What the loop makes of a step: margins of all its groups, one β, groups with it."""
    refs, rows = logprobs(examples, seed=0), logprobs(examples, seed=1)
    groups = _maker(share=share, imitate=MmDpoSection()).pairs(examples, refs)
    of = {(e.uid, k): row for e, some in zip(examples, rows, strict=True) for k, row in enumerate(some)}
    margins = [pair_margins(g, score_ratios(g, [of[s.uid, s.sample_index] for s in g.sequences])) for g in groups]
    beta = step_beta(np.concatenate(margins), beta=0.1, weight=0.1, seed=0, step=4)
    return beta, with_beta(groups, beta)


def test_the_implicit_beta_is_that_of_the_step_and_not_of_a_group() -> None:
    examples = _examples()
    beta, groups = _implicit(examples, share=True)
    assert {b for g in groups if isinstance(g.terms, PairTerms) for b in g.terms.betas} == {beta}
    assert all(g.imitation for g in groups), "what is imitated stays"
    apart, groups_apart = _implicit(examples, share=False)
    assert apart == beta
    policy = _Policy(examples, logprobs(examples, seed=1))
    assert float(policy.objective(groups_apart).detach()) == pytest.approx(
        float(policy.objective(groups).detach()), rel=1e-9
    )
