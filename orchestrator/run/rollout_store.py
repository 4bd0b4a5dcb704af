"""Rollouts of every step in Parquet, for people and for exact comparison of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.run.folder import write_atomic

_SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("sample_index", pa.int32()),
        ("prompt_text", pa.string()),
        ("media", pa.list_(pa.string())),
        ("media_paths", pa.list_(pa.string())),
        ("completion_text", pa.string()),
        ("completion_ids", pa.list_(pa.int32())),
        ("rollout_logprobs", pa.list_(pa.float32())),
        ("reward", pa.float64()),
        ("reward_status", pa.string()),
        ("format", pa.float64()),
        ("accuracy", pa.float64()),
        ("consistency", pa.float64()),
        ("critique", pa.float64()),
        ("label", pa.string()),
        ("verdict", pa.string()),
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
        ("policy_version", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """One rollout as it is kept."""

    uid: str
    sample_index: int
    prompt_text: str
    media: tuple[str, ...]
    """SHA-256 of each image."""
    media_paths: tuple[str, ...]
    completion_text: str
    completion_ids: Sequence[int] | np.ndarray
    """Tuples when read back, as are the log-probs."""
    rollout_logprobs: Sequence[float] | np.ndarray
    reward: float | None
    """None where scoring failed."""
    reward_status: str
    format: float | None
    accuracy: float | None
    consistency: float | None
    label: str | None
    verdict: str | None
    """The parsed answer; None where there is no clear one."""
    finish_reason: str
    seed: int
    policy_version: int
    critique: float | None = None
    """Reward of the critique reward model; None where it was not asked, as in files from before it was kept."""


def write_rollouts(path: Path, rows: Sequence[RolloutRow]) -> None:
    """Write one step's rollouts; the file appears whole."""
    buffer = pa.BufferOutputStream()
    # By columns, so that arrays of tokens never become Python numbers.
    columns = {name: [getattr(row, name) for row in rows] for name in _SCHEMA.names}
    pq.write_table(pa.Table.from_pydict(columns, schema=_SCHEMA), buffer)
    write_atomic(path, buffer.getvalue().to_pybytes())


def read_rollouts(path: Path) -> list[RolloutRow]:
    """Read back what ``write_rollouts`` wrote."""
    tuples = ("media", "media_paths", "completion_ids", "rollout_logprobs")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    for row in rows:
        row |= {name: tuple(row[name]) for name in tuples}
    return [RolloutRow(**row) for row in rows]
