"""Reductions that a masked value can never reach, whatever it holds."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def keep(values: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Zero outside ``mask``; a NaN or infinity there leaks into neither the value nor the gradient."""
    return values.where(mask, values.new_zeros(()))


def masked_mean(values: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"], *, dim: int | None = None) -> Tensor:
    """Mean over the mask along ``dim`` (None: over everything); 0 where the mask is empty."""
    kept = keep(values, mask)
    if dim is None:
        return kept.sum() / mask.sum().clamp(min=1)
    return kept.sum(dim=dim) / mask.sum(dim=dim).clamp(min=1)


def sequence_sums(values: Float[Tensor, "1 N"], lengths: Sequence[int]) -> Float[Tensor, "1 N"]:
    """At every token the sum over its own sequence.

    Args:
        values: Sequences one behind the other; what must not count is 0.
        lengths: Of the sequences; they add up to ``N``.
    """
    pieces = values[0].split(list(lengths))
    return torch.cat([piece.sum().expand(len(piece)) for piece in pieces])[None]
