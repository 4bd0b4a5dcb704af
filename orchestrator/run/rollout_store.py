"""Rollouts of every step in Parquet, for people and for exact comparison of runs."""

from collections.abc import Mapping, Sequence
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
        ("label", pa.string()),
        ("verdict", pa.string()),
        ("answer_right", pa.bool_()),
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
        ("policy_version", pa.int64()),
    ]
)
OWN_COLUMNS = frozenset(_SCHEMA.names)
"""Any other column is a part of the reward, by its name."""


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
    parts: Mapping[str, float | None]
    """Of the reward, by name; None where one was not looked at. Read back, every row has those of all."""
    label: str | None
    verdict: str | None
    """The parsed answer; None where there is no clear one."""
    answer_right: bool | None
    """Whether it is the label; None where the row has none."""
    finish_reason: str
    seed: int
    policy_version: int


def write_rollouts(path: Path, rows: Sequence[RolloutRow]) -> None:
    """Write one step's rollouts; the file appears whole."""
    buffer = pa.BufferOutputStream()
    # By columns, so that arrays of tokens never become Python numbers.
    columns = {name: [getattr(row, name) for row in rows] for name in _SCHEMA.names}
    schema, behind_status = _SCHEMA, _SCHEMA.get_field_index("reward_status") + 1
    for index, name in enumerate(dict.fromkeys(name for row in rows for name in row.parts)):
        schema = schema.insert(behind_status + index, pa.field(name, pa.float64()))
        columns[name] = [row.parts.get(name) for row in rows]
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), buffer)
    write_atomic(path, buffer.getvalue().to_pybytes())


def read_rollouts(path: Path) -> list[RolloutRow]:
    """Read back what ``write_rollouts`` wrote."""
    tuples = ("media", "media_paths", "completion_ids", "rollout_logprobs")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    for row in rows:
        row |= {name: tuple(row[name]) for name in tuples}
        if "answer_right" not in row:  # of an earlier version, which knew judgements alone
            row["answer_right"] = None if row["label"] is None else row["verdict"] == row["label"]
        row["parts"] = {name: row.pop(name) for name in list(row) if name not in OWN_COLUMNS}
    return [RolloutRow(**row) for row in rows]
