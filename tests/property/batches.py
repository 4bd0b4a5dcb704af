"""Random token-aligned batches for the properties of ``algorithms``."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

POISON = (float("nan"), float("inf"), float("-inf"))


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything a policy loss reads, ``[B, T]``, float64; slot 0 is in no mask."""

    logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor
    mask: Tensor

    @property
    def num_sequences(self) -> int:
        """Rows with at least one counted token, but never 0."""
        return max(int(self.mask.any(dim=1).sum()), 1)

    @property
    def num_tokens(self) -> int:
        """Counted tokens, but never 0."""
        return max(int(self.mask.sum()), 1)


def _floats(rows: int, columns: int, *, low: float, high: float) -> st.SearchStrategy[Tensor]:
    """Multiples of 2^-8, so that sums of a few are exact."""
    steps = arrays(np.int64, (rows, columns), elements=st.integers(round(low * 256), round(high * 256)))
    return steps.map(lambda n: torch.from_numpy(n).double() / 256)


@st.composite
def batches(draw: st.DrawFn, *, max_log_ratio: float = 3.0) -> Batch:
    """Any batch whose log-ratios stay within the bound; rows without a counted token included."""
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    old = draw(_floats(rows, columns, low=-8, high=0))
    mask = torch.from_numpy(draw(arrays(np.bool_, (rows, columns))))
    mask[:, 0] = False
    return Batch(
        logprobs=old + draw(_floats(rows, columns, low=-max_log_ratio, high=max_log_ratio)),
        old_logprobs=old,
        ref_logprobs=draw(_floats(rows, columns, low=-8, high=0)),
        advantages=draw(_floats(rows, columns, low=-4, high=4)),
        mask=mask,
    )


@st.composite
def row_splits(draw: st.DrawFn, rows: int) -> list[Tensor]:
    """A partition of the rows into shards, in any order, some possibly empty."""
    shard_of = torch.tensor(draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)))
    return [(shard_of == shard).nonzero().flatten() for shard in range(4)]


@st.composite
def log_ratios(draw: st.DrawFn, *, limit: int = 16) -> tuple[Tensor, Tensor]:
    """Log-ratios of a few pairs, multiples of 2^-8."""
    rows = draw(st.integers(1, 5))
    steps = st.lists(st.integers(-limit * 256, limit * 256), min_size=rows, max_size=rows)
    chosen, rejected = (torch.tensor(draw(steps), dtype=torch.float64) / 256 for _ in range(2))
    return chosen, rejected


def poisoned(values: Tensor, mask: Tensor, poison: float) -> Tensor:
    """``values`` with ``poison`` everywhere outside the mask."""
    return torch.where(mask, values, torch.full_like(values, poison))
