"""Attention over stretches of tokens that says its log-sum-exp, by whatever computes it fastest here.

Queries are ``[T, heads, D]``, keys and values ``[U, key heads, D]``; the log-sum-exp of a query's scores is
``[heads, T]``, in at least float32. A key head serves ``heads / key heads`` query heads that follow each other, and is
never copied for them.

A backward pass asks for no more than the attention's output, its log-sum-exp and the gradient of the output; they need
not be the kernel's own. With those of an attention to more keys than these it returns what these keys and values, and
the queries through them, contribute to its gradient (see ``shared_prompt``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from workers.multimodal.packing import Stretches


@dataclass(frozen=True, slots=True)
class Look:
    """Who sees whom: the i-th stretch of queries sees the i-th of keys."""

    queries: Stretches
    keys: Stretches
    causal: bool
    """A query sees no key after its own place; both stretches are the same."""
    scale: float
    """Scores are products of queries and keys times this."""


class Kernel(Protocol):
    """One way to compute it."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, look: Look) -> tuple[Tensor, Tensor]:
        """The output ``[T, heads, D]`` and the log-sum-exp."""
        ...

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, look: Look
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v."""
        ...


class PlainKernel:
    """In matrix products that anybody can read: what the others are measured against, and ``attention = "eager"``.

    With S = scale * q k^T and P = exp(S - lse): out = P v; dv = P^T do; dS = P * (do v^T - rowsum(do * out)).

    Source: FlashAttention-2, section 2.3.2 and algorithm 2, https://arxiv.org/abs/2307.08691
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, look: Look) -> tuple[Tensor, Tensor]:
        out, lse = torch.empty_like(q), _empty_lse(q)
        for rows, columns in _pairs(look):
            scores = self._scores(q[rows], k[columns], look)
            own = scores.logsumexp(dim=-1)
            lse[:, rows] = own.flatten(0, 1)
            weights = (scores - own.unsqueeze(-1)).exp()
            by_group(out[rows], k).copy_(weights @ _wide(shared(v[columns], q)))
        return out, lse

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, look: Look
    ) -> tuple[Tensor, Tensor, Tensor]:
        grads = dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for rows, columns in _pairs(look):
            queries, keys, values = by_group(q[rows], k), shared(k[columns], q), shared(v[columns], q)
            weights = (self._scores(q[rows], k[columns], look) - lse_by_group(lse, k, rows).unsqueeze(-1)).exp()
            pulled, made = _wide(by_group(grad[rows], k)), _wide(by_group(out[rows], k))
            of_scores = weights * (pulled @ _wide(values).mT - (pulled * made).sum(dim=-1, keepdim=True)) * look.scale
            by_group(dq[rows], k).copy_(of_scores @ _wide(keys))
            dk[columns] = (of_scores.mT @ _wide(queries)).sum(dim=1).transpose(0, 1).to(k.dtype)
            dv[columns] = (weights.mT @ pulled).sum(dim=1).transpose(0, 1).to(v.dtype)
        return grads

    @staticmethod
    def _scores(q: Tensor, k: Tensor, look: Look) -> Tensor:
        scores = _wide(by_group(q, k)) @ _wide(shared(k, q)).mT * look.scale
        if not look.causal:
            return scores
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        return scores.masked_fill(hidden, float("-inf"))


class _DenseBatches:
    """A kernel of torch for dense batches ``[B, heads, L, D]``, called for views of the row: no padding, no copies.

    A stretch is a batch in which a key head is one row and its query heads are the heads: keys have no stride over
    them. Of several stretches of one length that follow each other, the key heads are the heads, and the kernel is
    called once for each place among the query heads of a key head.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, look: Look) -> tuple[Tensor, Tensor]:
        out, lse = torch.empty_like(q), _empty_lse(q)
        for run in _runs(look, q.shape[1] // k.shape[1]):
            keys, values = run.keys(k), run.keys(v)
            for queries, made, own in zip(run.queries(q), run.queries(out), run.log_sums(lse), strict=True):
                whole, log_sums = self._attend(queries, keys, values, look)
                made.copy_(whole)
                own.copy_(log_sums)
        return out, lse

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, look: Look
    ) -> tuple[Tensor, Tensor, Tensor]:
        grads = dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for run in _runs(look, q.shape[1] // k.shape[1]):
            keys, values = run.keys(k), run.keys(v)
            cuts = (*map(run.queries, (grad, q, out, dq)), run.log_sums(lse))
            for call, (pulled, queries, made, found, own) in enumerate(zip(*cuts, strict=True)):
                of_q, of_k, of_v = self._pull(pulled, queries, keys, values, made, own, look)
                found.copy_(of_q)
                run.add(dk, of_k, first=call == 0)
                run.add(dv, of_v, first=call == 0)
        return grads

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, look: Look) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _pull(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, look: Look
    ) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError


class CpuKernel(_DenseBatches):
    """What ``scaled_dot_product_attention`` runs on a CPU."""

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, look: Look) -> tuple[Tensor, Tensor]:
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return attend(q, k, v, 0.0, look.causal, scale=look.scale)

    def _pull(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, look: Look
    ) -> tuple[Tensor, Tensor, Tensor]:
        pull = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        return pull(grad, q, k, v, out, lse, 0.0, look.causal, scale=look.scale)


class EfficientKernel(_DenseBatches):
    """What ``scaled_dot_product_attention`` runs on a GPU that has no flash kernel: in float32, or of before 2020."""

    _LSE_STEP = 32
    """It rounds the length of a log-sum-exp up to this."""

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, look: Look) -> tuple[Tensor, Tensor]:
        attend = torch.ops.aten._scaled_dot_product_efficient_attention
        out, lse, *_ = attend(q, k, v, None, True, 0.0, look.causal, scale=look.scale)
        return out, lse[..., : q.shape[2]]

    def _pull(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, look: Look
    ) -> tuple[Tensor, Tensor, Tensor]:
        pull = torch.ops.aten._scaled_dot_product_efficient_attention_backward
        filled = torch.nn.functional.pad(lse, (0, -lse.shape[-1] % self._LSE_STEP), value=float("inf"))
        unused = torch.zeros((), dtype=torch.int64)  # state of the dropout
        asked = [True, True, True, False]
        of_q, of_k, of_v, _ = pull(
            *(grad, q, k, v, None, out, filled, unused, unused, 0.0, asked, look.causal), scale=look.scale
        )
        return of_q, of_k, of_v


@dataclass(frozen=True, slots=True)
class _Run:
    """Stretches of one length that follow each other: ``size`` of ``rows`` queries and ``columns`` keys."""

    first_row: int
    first_column: int
    rows: int
    columns: int
    size: int
    groups: int
    """Query heads of a key head."""

    def queries(self, t: Tensor) -> list[Tensor]:
        """``[T, heads, D]`` as the batches of the calls: of one stretch all, of several one place in each group."""
        cut = t[self.first_row : self.first_row + self.size * self.rows]
        heads = t.shape[1] // self.groups
        if self.size == 1:
            return [cut.view(self.rows, heads, self.groups, t.shape[2]).permute(1, 2, 0, 3)]
        apart = cut.view(self.size, self.rows, heads, self.groups, t.shape[2])
        return list(apart.permute(3, 0, 2, 1, 4).unbind())

    def keys(self, t: Tensor) -> Tensor:
        """``[U, key heads, D]`` as the batch of each call."""
        cut = t[self.first_column : self.first_column + self.size * self.columns]
        if self.size == 1:
            return cut.transpose(0, 1).unsqueeze(1).expand(-1, self.groups, -1, -1)
        return cut.view(self.size, self.columns, *t.shape[1:]).transpose(1, 2)

    def log_sums(self, lse: Tensor) -> list[Tensor]:
        """``[heads, T]`` as what belongs to ``queries``."""
        cut = lse[:, self.first_row : self.first_row + self.size * self.rows]
        if self.size == 1:
            return [cut.view(-1, self.groups, self.rows)]
        return list(cut.view(-1, self.groups, self.size, self.rows).permute(1, 2, 0, 3).unbind())

    def add(self, grad: Tensor, found: Tensor, *, first: bool) -> None:
        """Put what a call found for ``keys`` into ``[U, key heads, D]``."""
        cut = grad[self.first_column : self.first_column + self.size * self.columns]
        if self.size == 1:
            torch.sum(found, dim=1, out=cut.transpose(0, 1))
        elif first:
            cut.view(self.size, self.columns, *grad.shape[1:]).transpose(1, 2).copy_(found)
        else:
            cut.view(self.size, self.columns, *grad.shape[1:]).transpose(1, 2).add_(found)


def _runs(look: Look, groups: int) -> Iterator[_Run]:
    shapes = ((q.stop - q.start, k.stop - k.start) for q, k in _pairs(look))
    row = column = 0
    for (rows, columns), run in groupby(shapes):
        size = len(list(run))
        # As many calls as there are stretches, or as query heads of a key head.
        for each in [size] if size >= groups else [1] * size:
            yield _Run(row, column, rows, columns, each, groups)
            row, column = row + each * rows, column + each * columns


def by_group(t: Tensor, keys: Tensor) -> Tensor:
    """``[T, heads, D]`` as ``[key heads, heads / key heads, T, D]``, a view."""
    return t.unflatten(1, (keys.shape[1], -1)).permute(1, 2, 0, 3)


def shared(t: Tensor, queries: Tensor) -> Tensor:
    """``[U, key heads, D]`` as ``[key heads, heads / key heads, U, D]``, a view without stride in the second axis."""
    return t.transpose(0, 1).unsqueeze(1).expand(-1, queries.shape[1] // t.shape[1], -1, -1)


def lse_by_group(lse: Tensor, keys: Tensor, rows: slice) -> Tensor:
    """``[heads, T]`` as ``[key heads, heads / key heads, rows]``, a view."""
    return lse[:, rows].unflatten(0, (keys.shape[1], -1))


def _pairs(look: Look) -> Iterator[tuple[slice, slice]]:
    return zip(look.queries.slices(), look.keys.slices(), strict=True)


def _wide(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


def _empty_lse(q: Tensor) -> Tensor:
    return torch.empty(q.shape[1], len(q), dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
