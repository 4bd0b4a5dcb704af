"""The language model's head and the log-probs of its tokens, computed once, with one buffer of logits.

``token_logprobs`` under autograd keeps, of each logit, itself, its wide copy and its log-prob. Here the head's own
output is all that is kept, in the model's number format: the backward pass turns it, in place and a few rows at a time,
into the gradient of the logits, and the head's own backward pass takes that. A frozen head needs no more for its
backward pass than one row of ``hidden`` size a token, so of its logits nothing is kept at all.

At 16,384 tokens and 152,000 ids the buffer has 5 GB in bfloat16, between two passes over the head alone. To compute the
head again costs 2 NHV of about 6 N x parameters, 2 to 3 % of a step of 7 billion parameters: right only where
``BYTES_KEPT`` would not hold the buffer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from algorithms.maths.logprobs import TokenScores

BYTES_KEPT = {"cuda": 1 << 33, "cpu": 1 << 31}
"""Of logits, from forward to backward pass: a tenth of a GPU of 80 GB."""
NUMBERS_AT_ONCE = {"cuda": 1 << 26, "cpu": 1 << 20}
"""That are wide at a time: few calls on a GPU, a cache on a CPU."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How logits become probabilities, in at least float32: capped, divided by the temperature, some left out."""

    temperature: float = 1.0
    banned_ids: Sequence[int] = ()
    cap: float | None = None
    """Of ``cap * tanh(logits / cap)`` (Gemma 2, https://arxiv.org/abs/2408.00118, section 2)."""

    def wide(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the softmax is over, and, where there is a cap, the slope that it has there."""
        scores, slope = logits if logits.dtype == torch.float64 else logits.float(), None
        if self.cap is not None:
            bent = torch.tanh(scores / self.cap)
            scores, slope = self.cap * bent, 1.0 - bent.square()
        if self.temperature != 1.0:
            scores = scores / self.temperature
        if self.banned_ids:
            banned = torch.tensor(list(self.banned_ids), device=scores.device)
            scores = scores.index_fill(-1, banned, float("-inf"))
        return scores, slope


def score_logits(logits: Tensor, ids: Tensor, reading: Reading) -> TokenScores:
    """As ``token_logprobs``; a backward pass overwrites the logits, so nobody else may need them, and there is but one.

    Args:
        logits: ``[N, V]``, what a head made.
        ids: ``[N]``.
    """
    return TokenScores(*_OfLogits.apply(logits, ids, reading))  # type: ignore[misc]


def score_frozen(
    head: Callable[[Tensor], Tensor], hidden: Tensor, ids: Tensor, reading: Reading, *, pieces: int
) -> TokenScores:
    """As ``score_logits(head(hidden), ids, reading)``, of a head none of whose parameters learns.

    The log-prob of a token depends on its own row alone. So its gradient is that of the log-prob, known in the forward
    pass, times a number, known in the backward pass.

    Args:
        hidden: ``[N, H]``.
        pieces: Calls of the head, of whose logits those of one are there at a time.
    """
    return TokenScores(*_OfFrozenHead.apply(hidden, ids, head, reading, pieces))  # type: ignore[misc]


class _OfLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, reading: Reading) -> tuple[Tensor, ...]:
        scores, log_sums = _read(logits, ids, reading)
        ctx.save_for_backward(logits, ids, log_sums)
        ctx.reading = reading
        ctx.mark_non_differentiable(scores.entropy, scores.greedy)
        return tuple(scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, ids, log_sums = ctx.saved_tensors  # torch itself refuses these once they were overwritten
        _pull(logits, ids, log_sums, grads[0], ctx.reading)
        return logits, None, None


class _OfFrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, ids: Tensor, head: Callable[[Tensor], Tensor], reading: Reading, pieces: int
    ) -> tuple[Tensor, ...]:
        scored, slopes = [], []
        for some, own_ids in zip(hidden.tensor_split(pieces), ids.tensor_split(pieces), strict=True):
            with torch.enable_grad():
                states = some.detach().requires_grad_()
                logits = head(states)
            buffer = logits.detach()
            scores, log_sums = _read(buffer, own_ids, reading)
            _pull(buffer, own_ids, log_sums, torch.ones_like(log_sums), reading)
            slopes.append(*torch.autograd.grad(logits, states, buffer))
            scored.append(scores)
        logprobs, entropy, greedy = map(torch.cat, zip(*scored, strict=True))
        ctx.save_for_backward(torch.cat(slopes))
        ctx.mark_non_differentiable(entropy, greedy)
        return logprobs, entropy, greedy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slopes * grads[0].unsqueeze(-1)).to(slopes.dtype), None, None, None, None


@torch.no_grad()
def _read(logits: Tensor, ids: Tensor, reading: Reading) -> tuple[TokenScores, Tensor]:
    """The scores, and the log-sum-exp ``[N]`` of what the softmax was over."""
    scored = []
    for some, own in _chunks(logits, ids):
        scores, _ = reading.wide(some)
        best, likeliest = scores.max(dim=-1)
        log_all = scores.log_softmax(dim=-1)
        log_sum = best - log_all.gather(-1, likeliest.unsqueeze(-1)).squeeze(-1)
        chosen = log_all.gather(-1, own.unsqueeze(-1)).squeeze(-1)
        # Of what has no probability nothing is added: 0 times the least number that there is.
        entropy = -torch.linalg.vecdot(log_all.exp(), log_all.clamp_(min=torch.finfo(log_all.dtype).min))
        scored.append((chosen, entropy, likeliest == own, log_sum))
    chosen, entropy, greedy, log_sums = map(torch.cat, zip(*scored, strict=True))
    return TokenScores(chosen, entropy, greedy), log_sums


@torch.no_grad()
def _pull(logits: Tensor, ids: Tensor, log_sums: Tensor, grad: Tensor, reading: Reading) -> None:
    """Overwrite logits with the gradient of their log-probs: grad * (1 of the token - the probabilities)."""
    for some, own, log_sum, pulled in _chunks(logits, ids, log_sums, grad):
        scores, slope = reading.wide(some)
        found = (scores - log_sum.unsqueeze(-1)).exp_().neg_()
        found.scatter_add_(-1, own.unsqueeze(-1), torch.ones_like(found[:, :1]))
        found.mul_(pulled.unsqueeze(-1) / reading.temperature)
        some.copy_(found if slope is None else found.mul_(slope))


def _chunks(logits: Tensor, *columns: Tensor) -> Any:
    at_once = NUMBERS_AT_ONCE.get(logits.device.type, min(NUMBERS_AT_ONCE.values()))
    rows = max(1, at_once // logits.shape[-1])
    return zip(*(t.split(rows) for t in (logits, *columns)), strict=True)
