"""What a token diff marks, and how DDPO's scores weigh it."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from algorithms.maths.preference_losses import Reduction, dpo_loss, weighted_scores
from algorithms.maths.token_diff import DDPO_MODES, DdpoMode, ddpo_weights, token_diff
from tests.property.batches import POISON, Batch, batches, poisoned
from tests.response_scores import response_scores

REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
IDS = st.lists(st.integers(1, 4), max_size=12)


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def _ddpo(logprobs: Tensor, batch: Batch, corrected: Tensor, mode: DdpoMode) -> Tensor:
    weights = ddpo_weights(batch.mask, corrected, gamma=mode.gamma, average=mode.average, base_weight=mode.base_weight)
    return weighted_scores(logprobs, weights)


@pytest.mark.parametrize("poison", POISON)
@given(batch=batches())
def test_poison_behind_the_mask_reaches_neither_score_nor_gradient(poison: float, batch: Batch) -> None:
    corrected = batch.advantages > 0
    scorers: list[Callable[[Tensor], Tensor]] = [
        *(lambda x, r=r: response_scores(x, batch.mask, reduction=r) for r in REDUCTIONS),
        *(lambda x, m=m: _ddpo(x, batch, corrected, m) for m in DDPO_MODES.values()),
    ]
    for scorer in scorers:
        bad = poisoned(batch.logprobs, batch.mask, poison).requires_grad_()
        good = batch.logprobs.clone().requires_grad_()
        found, clean = scorer(bad), scorer(good)
        assert torch.equal(found, clean)
        (gradient,), (expected,) = torch.autograd.grad(found.sum(), bad), torch.autograd.grad(clean.sum(), good)
        assert torch.equal(gradient, expected)
        assert not gradient[~batch.mask].any()


@given(batch=batches())
def test_ddpo_with_gamma_one_is_dpo_whatever_was_corrected(batch: Batch) -> None:
    corrected = batch.advantages > 0
    for reduction in REDUCTIONS:
        average = reduction == "mean"
        scores = _ddpo(batch.logprobs, batch, corrected, DdpoMode(gamma=1.0, average=average, base_weight=1))
        _close(scores, response_scores(batch.logprobs, batch.mask, reduction=reduction))


@given(batch=batches(), gamma=st.floats(0.25, 8.0))
def test_ddpo_sum_is_the_unchanged_part_plus_gamma_times_the_corrected_one(batch: Batch, gamma: float) -> None:
    corrected = batch.advantages > 0
    changed, unchanged = (
        response_scores(batch.logprobs, batch.mask & part, reduction="sum") for part in (corrected, ~corrected)
    )
    for base_weight in (0, 1):
        mode = DdpoMode(gamma=gamma, average=False, base_weight=base_weight)
        scores = _ddpo(batch.logprobs, batch, corrected, mode)
        _close(scores, base_weight * unchanged + gamma * changed)


@given(batch=batches(), gamma=st.floats(0.25, 8.0))
def test_ddpo_average_stays_between_the_extremes_of_its_tokens(batch: Batch, gamma: float) -> None:
    mode = DdpoMode(gamma=gamma, average=True, base_weight=1)
    scores = _ddpo(batch.logprobs, batch, batch.advantages > 0, mode)
    for score, row, mask in zip(scores, batch.logprobs, batch.mask, strict=True):
        low, high = (row[mask].min(), row[mask].max()) if mask.any() else (torch.zeros(()), torch.zeros(()))
        assert low - 1e-12 <= score <= high + 1e-12


@given(batch=batches())
def test_an_identical_pair_scores_nothing_under_base_weight_zero(batch: Batch) -> None:
    logprobs = batch.logprobs.clone().requires_grad_()
    for average in (False, True):
        mode = DdpoMode(gamma=1.0, average=average, base_weight=0)
        scores = _ddpo(logprobs, batch, torch.zeros_like(batch.mask), mode)
        assert not scores.any()
        assert not torch.autograd.grad(scores.sum(), logprobs)[0].any()


@pytest.mark.parametrize("mode", DDPO_MODES.values(), ids=DDPO_MODES)
@given(batch=batches())
def test_ddpo_of_a_policy_that_is_its_reference_pays_ln_2(mode: DdpoMode, batch: Batch) -> None:
    corrected = batch.advantages > 0
    scores = _ddpo(batch.logprobs, batch, corrected, mode)
    loss = dpo_loss(scores - scores.clone(), scores - scores.clone(), kind="sigmoid", beta=0.1).loss
    _close(loss, torch.full_like(loss, math.log(2)))


def _kept(ids: list[int], marks: list[bool]) -> list[int]:
    return [token for token, marked in zip(ids, marks, strict=True) if not marked]


@given(ids=IDS)
def test_an_identical_pair_has_no_corrected_token(ids: list[int]) -> None:
    assert token_diff(ids, ids) == ([False] * len(ids), [False] * len(ids))


@given(a=IDS, b=IDS, min_match=st.integers(1, 4))
def test_what_is_not_corrected_is_the_same_on_both_sides_and_a_changed_pair_is_seen(
    a: list[int], b: list[int], min_match: int
) -> None:
    chosen, rejected = token_diff(a, b, min_match=min_match)
    assert _kept(a, chosen) == _kept(b, rejected)
    assert (any(chosen) or any(rejected)) == (a != b)


@given(prefix=IDS, a=IDS, b=IDS)
def test_a_common_beginning_changes_nothing(prefix: list[int], a: list[int], b: list[int]) -> None:
    chosen, rejected = token_diff(a, b)
    longer = token_diff(prefix + a, prefix + b)
    assert longer == ([False] * len(prefix) + chosen, [False] * len(prefix) + rejected)


@given(a=IDS, b=IDS, left=st.integers(0, 4), right=st.integers(0, 4))
def test_common_padding_on_either_side_changes_nothing(a: list[int], b: list[int], left: int, right: int) -> None:
    """VL-RLHF acceptance 3."""
    pad = [0]
    padded = token_diff(pad * left + a + pad * right, pad * left + b + pad * right)
    around = [[False] * left + marks + [False] * right for marks in token_diff(a, b)]
    assert list(padded) == around


@given(common=st.lists(st.integers(1, 99), unique=True, max_size=12), data=st.data())
def test_an_insertion_is_marked_exactly_and_on_its_own_side_only(common: list[int], data: st.DataObject) -> None:
    at, added = data.draw(st.integers(0, len(common))), data.draw(st.integers(1, 4))
    longer = common[:at] + [100] * added + common[at:]
    marks = [False] * at + [True] * added + [False] * (len(common) - at)
    assert token_diff(common, longer) == ([False] * len(common), marks)
    assert token_diff(longer, common) == (marks, [False] * len(common))


@given(tokens=st.lists(st.integers(1, 5), min_size=200, max_size=260))
def test_substitutions_at_both_ends_mark_two_tokens_however_frequent_the_others(tokens: list[int]) -> None:
    # From 200 tokens on, difflib would by default drop every frequent one and mark everything.
    marks = [True, *[False] * len(tokens), True]
    assert token_diff([6, *tokens, 7], [8, *tokens, 9]) == (marks, marks)
