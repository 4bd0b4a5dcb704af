"""Whitening among groups of rows: the whole rollout, each row by itself, or the rows that one rank had.

Statistics are of all rows of a group at once, on the driver, so that they do not depend on the number of ranks unless
the groups are those of ranks, as in the code that this is compared with.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from algorithms.maths.masking import keep

_EPSILON = 1e-8
"""Added to σ, not to σ²: a group of equals is 0, and so is what rounding leaves of one."""


def whiten_groups(
    values: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    groups: Int[Tensor, " B"] | None = None,
    *,
    shift_mean: bool = True,
    min_rows: int = 1,
) -> Float[Tensor, "B T"]:
    """Standardise the masked tokens of each group: z = (x − μ) / (σ + 1e-8), zero outside the mask.

    σ is of the population, the moments in float64. A mask of ones counts padding as well, as LLaVA-RLHF does.

    Args:
        groups: Rows with one number are whitened together: all 0 or None is the rollout ("full_batch" there), the
            rows' own numbers are each row by itself ("none"), those of ranks are "per_gpu".
        shift_mean: False adds μ again, so that only the scale changes, as for rewards.
        min_rows: Least rows of a group; there 8, wherever rows are whitened together.
    Raises:
        ValueError: a group with fewer rows, or a masked value that is not finite.
    Source: LLaVA-RLHF, ppo_trainer.py:1130-1170
    """
    finite = torch.isfinite(values) | ~mask
    if not bool(finite.all()):
        row, slot = (~finite).nonzero()[0].tolist()
        raise ValueError(f"row {row}, token {slot} is {values[row, slot].item()}: it must be finite, or masked out")
    groups = torch.zeros(len(values), dtype=torch.int64) if groups is None else groups
    whitened = torch.zeros_like(values)
    for group in groups.unique():
        rows = groups == group
        if (count := int(rows.sum())) < min_rows:
            raise ValueError(f"group {int(group)} has {count} rows, fewer than min_rows = {min_rows}")
        within = rows[:, None] & mask
        chosen = values[within].double()
        if chosen.numel():
            mean = chosen.mean()
            scaled = (chosen - mean) / (chosen.std(correction=0) + _EPSILON)
            whitened[within] = (scaled if shift_mean else scaled + mean).to(values.dtype)
    return keep(whitened, mask)
