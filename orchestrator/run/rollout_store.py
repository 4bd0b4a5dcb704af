"""Rollouts of every step in Parquet, for people and for exact comparison of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.run.folder import written_atomic

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
        ("oldest_version", pa.int64()),
        ("source", pa.string()),
    ]
)
OWN_COLUMNS = frozenset(_SCHEMA.names)
"""Any other column is a part of the reward, by its name."""
_TOKENS = ("completion_ids", "rollout_logprobs")
_NEVER_TWICE = ("completion_text", "rollout_logprobs")
"""Long columns in whose values it is in vain to look for the same again."""
_ROW_GROUP = 2048


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
    """Of the weights that sampled its last token."""
    oldest_version: int
    """Of those that sampled its first."""
    source: str = ""
    """Of the data, where there are several."""


def write_rollouts(path: Path, rows: Sequence[RolloutRow]) -> None:
    """Write one step's rollouts, a row group after the other; the file appears whole."""
    schema, behind_status = _SCHEMA, _SCHEMA.get_field_index("reward_status") + 1
    for index, name in enumerate(dict.fromkeys(name for row in rows for name in row.parts)):
        schema = schema.insert(behind_status + index, pa.field(name, pa.float64()))
    leaves = [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema]
    packing = {leaf: "none" if leaf.startswith("rollout_logprobs") else "snappy" for leaf in leaves}
    repeating = [leaf for leaf in leaves if not leaf.startswith(_NEVER_TWICE)]
    options: dict[str, Any] = {"compression": packing, "use_dictionary": repeating}
    with written_atomic(path) as file, pq.ParquetWriter(file, schema, **options) as writer:
        for start in range(0, len(rows), _ROW_GROUP):
            writer.write_table(_table(rows[start : start + _ROW_GROUP], schema))


def _table(rows: Sequence[RolloutRow], schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        if field.name in _TOKENS:
            columns.append(_lists([getattr(row, field.name) for row in rows], field.type))
        elif field.name in OWN_COLUMNS:
            columns.append(pa.array([getattr(row, field.name) for row in rows], field.type))
        else:
            columns.append(pa.array([row.parts.get(field.name) for row in rows], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _lists(rows: Sequence[Sequence[float] | np.ndarray], kind: pa.ListType) -> pa.Array:
    """Arrays of tokens as one column, without a Python number for any of them."""
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    flat = np.concatenate([np.empty(0, kind.value_type.to_pandas_dtype()), *rows])
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat, kind.value_type), type=kind)


def read_rollouts(path: Path) -> list[RolloutRow]:
    """Read back what ``write_rollouts`` wrote."""
    tuples = ("media", "media_paths", "completion_ids", "rollout_logprobs")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    for row in rows:
        row |= {name: tuple(row[name]) for name in tuples}
        if "answer_right" not in row:  # of an earlier version, which knew judgements alone
            row["answer_right"] = None if row["label"] is None else row["verdict"] == row["label"]
        row.setdefault("oldest_version", row["policy_version"])  # of one that knew no other
        row["parts"] = {name: row.pop(name) for name in list(row) if name not in OWN_COLUMNS}
    return [RolloutRow(**row) for row in rows]
