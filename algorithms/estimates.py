"""What the rewards of a step come to before they are learned from, and the parts that they are made of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from algorithms.records import Rollout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What rewards come to."""

    advantages: "Tensor"
    """Before the filter, ``[B, T]``."""
    raw_mean: float
    """Mean return before anything was standardised."""
    returns: "Tensor | None" = None
    """What a critic learns, ``[B, T]``; None without one."""
    figures: Mapping[str, float] = field(default_factory=dict)


def parts_of(rollouts: Sequence[Rollout]) -> "tuple[Tensor, Tensor]":
    """Parts of the rewards ``[B, K]``, NaN where a rollout lacks one, and their weights ``[K]``."""
    import torch

    rows = [r.parts or {"reward": r.reward} for r in rollouts]
    weights = {name: weight for r in rollouts for name, weight in r.part_weights.items()}
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = [[math.nan if (part := row.get(name)) is None else part for name in names] for row in rows]
    parts = torch.tensor(values, dtype=torch.float32).reshape(len(rows), len(names))
    return parts, torch.tensor([weights.get(name, 1.0) for name in names], dtype=torch.float32)
