"""What is sampled and not learned from yet, as a checkpoint keeps it, so that a run that goes on is the same run.

One row of ``ahead.parquet`` is a sample, whole or not; the samples of a prompt stand side by side, in order, and the
prompts in the order in which they were first asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.run.folder import write_atomic
from workers.types import FinishReason

FILE = "ahead.parquet"
Span = tuple[int, int]
"""So many tokens, and the version of the weights that sampled them."""
_SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("index", pa.int64()),
        ("begun", pa.int64()),
        ("ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("spans", pa.list_(pa.list_(pa.int64()))),
        ("finish_reason", pa.string()),
        ("engine", pa.string()),
        ("reward", pa.string()),
        ("ref_logprobs", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AheadSample:
    """A completion, as far as it has come."""

    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    """int32 ``[L]``."""
    logprobs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """float32 ``[L]``, nats, of the distribution that each token was sampled from."""
    spans: tuple[Span, ...] = ()
    finish_reason: FinishReason | None = None
    """None where it goes on."""
    engine: str = ""
    """Of its last token."""
    reward: str | None = None
    """JSON; None where it has none yet, or none that is settled."""
    ref_logprobs: np.ndarray | None = None
    """float32 ``[L]``; None where the reference has not been asked."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AheadGroup:
    """The samples of a prompt."""

    uid: str
    index: int
    """Of the prompt in the data set."""
    begun: int
    """Steps finished by the weights that sampled its first token."""
    samples: tuple[AheadSample, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every sample has come to its end."""
        return all(sample.finish_reason is not None for sample in self.samples)


def write_ahead(folder: Path, groups: Sequence[AheadGroup]) -> None:
    """Write ``ahead.parquet``; the file appears whole."""
    pairs = [(group, sample) for group in groups for sample in group.samples]
    columns = {name: [getattr(group, name) for group, _ in pairs] for name in ("uid", "index", "begun")}
    columns |= {name: [getattr(sample, name) for _, sample in pairs] for name in _SCHEMA.names if name not in columns}
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pydict(columns, schema=_SCHEMA), buffer)
    write_atomic(folder / FILE, buffer.getvalue().to_pybytes())


def read_ahead(folder: Path) -> tuple[AheadGroup, ...]:
    """Read back what ``write_ahead`` wrote."""
    rows = pq.read_table(folder / FILE).to_pylist()
    return tuple(
        AheadGroup(uid=uid, index=index, begun=begun, samples=tuple(_sample(row) for row in found))
        for (uid, index, begun), found in groupby(rows, key=lambda row: (row["uid"], row["index"], row["begun"]))
    )


def _sample(row: dict[str, Any]) -> AheadSample:
    ref = row["ref_logprobs"]
    return AheadSample(
        ids=np.asarray(row["ids"], np.int32),
        logprobs=np.asarray(row["logprobs"], np.float32),
        spans=tuple((tokens, version) for tokens, version in row["spans"]),
        finish_reason=row["finish_reason"],
        engine=row["engine"],
        reward=row["reward"],
        ref_logprobs=None if ref is None else np.asarray(ref, np.float32),
    )
