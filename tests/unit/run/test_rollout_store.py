"""Rollouts come back as they were written, and a file is whole or absent."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.run.rollout_store import RolloutRow, read_rollouts, write_rollouts

_ROW = RolloutRow(
    uid="train-000012",
    sample_index=3,
    prompt_text="[image] which ?\nünïcode \x00",
    media=("ab" * 32, "cd" * 32),
    media_paths=("images/a.png", "images/b.png"),
    completion_text="<answer> 1 </answer>",
    completion_ids=(5, 151_645),
    rollout_logprobs=(float(np.float32(-0.1)), -2.0),
    reward=0.1,
    reward_status="scored",
    parts={"format": 1.0, "accuracy": 0.0, "consistency": None, "critique": -0.25},
    label="1",
    verdict="1",
    answer_right=True,
    finish_reason="stop",
    seed=2**63 - 1,
    policy_version=12,
    oldest_version=11,
)
_FAILED = replace(
    _ROW,
    sample_index=4,
    reward=None,
    reward_status="failed",
    parts=dict.fromkeys(_ROW.parts),
    label=None,
    verdict=None,
    answer_right=None,
    media=(),
    media_paths=(),
    completion_ids=(),
    rollout_logprobs=(),
)


def test_rollouts_come_back_exactly(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "step_000012.parquet", [_ROW, _FAILED])
    assert read_rollouts(tmp_path / "step_000012.parquet") == [_ROW, _FAILED]
    assert os.listdir(tmp_path) == ["step_000012.parquet"]


def test_one_of_an_earlier_version_says_itself_what_was_right(tmp_path: Path) -> None:
    file = tmp_path / "step_000001.parquet"
    write_rollouts(
        file, [_ROW, replace(_ROW, verdict="2", answer_right=False), replace(_ROW, label=None, answer_right=None)]
    )
    pq.write_table(pq.read_table(file).drop_columns(["answer_right"]), file)
    assert [row.answer_right for row in read_rollouts(file)] == [True, False, None]


def test_parts_go_by_name_each_in_a_column_of_its_own_behind_the_status(tmp_path: Path) -> None:
    file = tmp_path / "step_000001.parquet"
    found = ({"format": 1.0}, {}, {"b": 2.0})
    write_rollouts(file, [replace(_ROW, parts=parts) for parts in found])
    columns = pq.read_schema(file).names
    assert columns[columns.index("reward_status") :][:4] == ["reward_status", "format", "b", "label"]
    assert [list(row.parts.items()) for row in read_rollouts(file)] == [
        [("format", 1.0), ("b", None)],
        [("format", None), ("b", None)],
        [("format", None), ("b", 2.0)],
    ]


def test_a_step_without_rollouts_has_a_table_without_rows(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "step_000001.parquet", [])
    assert read_rollouts(tmp_path / "step_000001.parquet") == []


def test_columns_have_the_types_other_programs_read(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "step_000001.parquet", [_ROW])
    schema = pq.read_schema(tmp_path / "step_000001.parquet")
    assert schema.field("completion_ids").type == pa.list_(pa.int32())
    assert schema.field("rollout_logprobs").type == pa.list_(pa.float32())
    assert schema.field("reward").type == pa.float64()


def test_a_row_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "step_000001.parquet"
    write_rollouts(path, [_ROW])
    with pytest.raises(pa.ArrowInvalid):
        write_rollouts(path, [replace(_ROW, completion_ids=(2**40,))])
    assert read_rollouts(path) == [_ROW]
    assert os.listdir(tmp_path) == ["step_000001.parquet"]
