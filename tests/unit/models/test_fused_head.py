"""The head's log-probs, computed once, are those of ``token_logprobs``, and so are their gradients."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from algorithms.maths.logprobs import TokenScores, token_logprobs
from workers.models import fused_head
from workers.models.fused_head import Reading, score_frozen, score_logits

_WIDTH, _IDS = 6, 17
_READINGS = st.builds(
    Reading,
    temperature=st.sampled_from([1.0, 0.5, 1.7]),
    banned_ids=st.sampled_from([(), (3,), (0, 16)]),
    cap=st.sampled_from([None, 30.0, 2.0]),
)


def _head(*, bias: bool, frozen: bool = False, dtype: torch.dtype = torch.float64) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(_WIDTH, _IDS, bias=bias, dtype=dtype).requires_grad_(not frozen)


def _inputs(num_tokens: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """States, ids of which none is banned, and weights of the tokens, some of which are 0."""
    generator = torch.Generator().manual_seed(num_tokens)
    hidden = 3 * torch.randn(num_tokens, _WIDTH, dtype=torch.float64, generator=generator)
    ids = torch.randint(4, 16, (num_tokens,), generator=generator)
    return hidden.to(dtype).requires_grad_(), ids, torch.arange(num_tokens, dtype=torch.float64) - 1


def _plainly(head: nn.Module, hidden: Tensor, ids: Tensor, reading: Reading) -> TokenScores:
    logits = head(hidden)
    if reading.cap is not None:
        logits = reading.cap * torch.tanh(logits / reading.cap)
    return token_logprobs(logits, ids, temperature=reading.temperature, banned_ids=reading.banned_ids)


def _fused(head: nn.Module, hidden: Tensor, ids: Tensor, reading: Reading) -> TokenScores:
    return score_logits(head(hidden), ids, reading)


def _frozen(head: nn.Module, hidden: Tensor, ids: Tensor, reading: Reading) -> TokenScores:
    return score_frozen(head, hidden, ids, reading, pieces=3)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_head, "NUMBERS_AT_ONCE", {"cpu": 4 * _IDS})


@pytest.mark.parametrize(("score", "frozen"), [(_fused, False), (_fused, True), (_frozen, True)])
@settings(deadline=None)
@given(num_tokens=st.integers(0, 11), bias=st.booleans(), reading=_READINGS)
def test_scores_and_gradients_are_those_of_token_logprobs(
    score: Callable[..., TokenScores], frozen: bool, num_tokens: int, bias: bool, reading: Reading
) -> None:
    head = _head(bias=bias, frozen=frozen)
    hidden, ids, weights = _inputs(num_tokens)
    learned = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    wanted, found = _plainly(head, hidden, ids, reading), score(head, hidden, ids, reading)
    torch.testing.assert_close(found.logprobs, wanted.logprobs, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found.entropy, wanted.entropy, atol=1e-12, rtol=1e-12)
    assert torch.equal(found.greedy, wanted.greedy)
    assert not found.entropy.requires_grad
    for one, other in zip(
        torch.autograd.grad((found.logprobs * weights).sum(), learned),
        torch.autograd.grad((wanted.logprobs * weights).sum(), learned),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(("score", "frozen"), [(_fused, False), (_frozen, True)])
def test_bfloat16_is_read_in_float32(score: Callable[..., TokenScores], frozen: bool) -> None:
    """The same log-probs as ``token_logprobs`` of the same logits; gradients within two spacings of bfloat16."""
    head = _head(bias=True, frozen=frozen, dtype=torch.bfloat16)
    hidden, ids, weights = _inputs(64, torch.bfloat16)
    reading = Reading(temperature=1.3, banned_ids=(3,))
    wanted, found = _plainly(head, hidden, ids, reading), score(head, hidden, ids, reading)
    assert found.logprobs.dtype == torch.float32
    torch.testing.assert_close(found.logprobs, wanted.logprobs, atol=1e-5, rtol=1e-5)
    grads = [torch.autograd.grad((s.logprobs * weights).sum(), hidden)[0].float() for s in (found, wanted)]
    assert (grads[0] - grads[1]).abs().max() <= 2**-7 * grads[1].abs().max()


@pytest.mark.parametrize(("score", "frozen", "products"), [(_fused, False, 3), (_fused, True, 2), (_frozen, True, 2)])
def test_the_head_is_computed_once(score: Callable[..., TokenScores], frozen: bool, products: int) -> None:
    """Logits, and in the backward pass the gradients of states and, where it learns, weights: 2NHV each."""
    head, (hidden, ids, _) = _head(bias=False, frozen=frozen), _inputs(8)
    with FlopCounterMode(display=False) as counter:
        score(head.forward, hidden, ids, Reading()).logprobs.sum().backward()  # the counter's hooks stay outside
    assert counter.get_total_flops() == products * 2 * 8 * _WIDTH * _IDS


@pytest.mark.parametrize(("score", "frozen", "kept"), [(_fused, False, 1), (_frozen, True, 0)])
def test_at_most_the_logits_themselves_are_kept(score: Callable[..., TokenScores], frozen: bool, kept: int) -> None:
    head, (hidden, ids, _) = _head(bias=False, frozen=frozen), _inputs(8)
    saved: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        score(head, hidden, ids, Reading(temperature=0.7, cap=9.0))
    assert sum(t.shape == (8, _IDS) for t in saved) == kept


def test_a_second_backward_pass_is_refused() -> None:
    head, (hidden, ids, _) = _head(bias=False), _inputs(8)
    total = _fused(head, hidden, ids, Reading()).logprobs.sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()
