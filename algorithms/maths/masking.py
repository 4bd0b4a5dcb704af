"""Reductions that a masked value can never reach, whatever it holds."""

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
