"""Side tables: bit-exact, resumable, and never used for anything but what they were made for."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.data.side_tables import Fingerprint, SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.errors import RefusedInput
from tests.unit.data.store_rows import text_instruction, written

PRINT = Fingerprint(
    store="s",
    model={"weights": "m", "config": "c", "tokenizer": "t", "processor": "p"},
    settings={"model.dtype": "float32", "model.attention": "sdpa"},
    limits={"data.max_prompt_tokens": 9},
    asked="a",
)


def _table(folder: Path, *, num_shards: int = 3, fingerprint: Fingerprint = PRINT) -> SideTable:
    return SideTable(folder, fingerprint=fingerprint, num_shards=num_shards)


def _fill(table: SideTable, shard: int, *vectors: np.ndarray) -> None:
    with table.begin(shard) as writer:
        for index, values in enumerate(vectors):
            writer.add(f"u-{shard}", index, values)


ONE = np.array([1.5], dtype=np.float32)


@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(bits=st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=6), max_size=5))
def test_every_bit_comes_back(tmp_path_factory: pytest.TempPathFactory, bits: list[list[int]]) -> None:
    # As bits: NaNs with any payload, -0.0, infinities and denormals are among them.
    vectors = [np.array(row, dtype=np.uint32).view(np.float32) for row in bits]
    table = _table(tmp_path_factory.mktemp("side"), num_shards=1)
    _fill(table, 0, *vectors)
    shard = _table(table.folder, num_shards=1).read(0)
    assert [values.view(np.uint32).tolist() for values in shard.values] == bits
    assert all(values.dtype == np.float32 for values in shard.values)
    assert shard.keys == [("u-0", index) for index in range(len(bits))]


def test_special_floats_come_back_bit_by_bit(tmp_path: Path) -> None:
    bits = np.array([0x7FC00001, 0xFFC00000, 0x7F800000, 0x80000000, 1, 0x7FA00000], dtype=np.uint32)
    table = _table(tmp_path)
    _fill(table, 1, bits.view(np.float32))
    assert np.array_equal(table.read(1).values[0].view(np.uint32), bits)


def _other(part: str) -> Fingerprint:
    """``PRINT`` with another value of a part."""
    group = next((g for g in ("model", "settings", "limits") if part in getattr(PRINT, g)), None)
    change: dict[str, Any] = {part: "new"} if group is None else {group: {**getattr(PRINT, group), part: "new"}}
    return replace(PRINT, **change)


@pytest.mark.parametrize("part", list(PRINT.parts()))
def test_a_table_made_for_something_else_is_refused_naming_what(tmp_path: Path, part: str) -> None:
    _table(tmp_path)
    other = _other(part)
    told = f"{part} is {PRINT.parts()[part]!r}, this run has 'new'"
    message = f"side table {str(tmp_path)!r} was made for something else: {told}"
    with pytest.raises(RefusedInput, match=f"^{re.escape(message)}$"):
        _table(tmp_path, fingerprint=other)
    _table(tmp_path)  # and it is still the old one's


def test_every_part_that_differs_is_named(tmp_path: Path) -> None:
    _table(tmp_path)
    with pytest.raises(RefusedInput, match="weights is 'm', this run has 'new', num_shards is 3, this run has 4"):
        _table(tmp_path, num_shards=4, fingerprint=_other("weights"))


def test_a_table_of_a_version_that_told_more_or_less_is_refused(tmp_path: Path) -> None:
    _table(tmp_path)
    more, less = (replace(PRINT, settings=s) for s in ({**PRINT.settings, "data.new": 1}, {"model.dtype": "float32"}))
    with pytest.raises(RefusedInput, match=r"data\.new is None, this run has 1"):
        _table(tmp_path, fingerprint=more)
    with pytest.raises(RefusedInput, match=r"model\.attention is 'sdpa', this run has None"):
        _table(tmp_path, fingerprint=less)


def test_a_restart_computes_the_missing_shards_alone(tmp_path: Path) -> None:
    table = _table(tmp_path)
    assert table.missing_shards() == [0, 1, 2]
    _fill(table, 2, ONE)
    with pytest.raises(KeyError), table.begin(0) as writer:
        writer.add("u", 0, ONE)
        raise KeyError("the worker was lost")
    again = _table(tmp_path)
    assert again.missing_shards() == [0, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard-000002.parquet", "shards.jsonl", "table.json"]
    with pytest.raises(RefusedInput, match="lacks shard 0 of 3"):
        again.read(0)


def test_a_file_without_its_line_is_no_shard(tmp_path: Path) -> None:
    table = _table(tmp_path)
    _fill(table, 0, ONE)
    (tmp_path / "shards.jsonl").unlink()
    assert table.missing_shards() == [0, 1, 2]


@pytest.mark.parametrize("kept", [*range(1, 69, 4), 69])
def test_a_torn_line_costs_its_own_shard_and_no_other(tmp_path: Path, kept: int) -> None:
    table = _table(tmp_path)
    for shard in (0, 1):
        _fill(table, shard, ONE)
    lines = (tmp_path / "shards.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines[1]) == 70
    (tmp_path / "shards.jsonl").write_bytes(lines[0] + lines[1][:kept])
    assert table.missing_shards() == ([2] if kept == 69 else [1, 2])  # all but the line break is a whole line
    _fill(table, 2, ONE)
    _fill(table, 1, ONE)
    assert table.missing_shards() == []


def test_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path)
    _fill(table, 0, np.arange(1000, dtype=np.float32))
    data = bytearray(table.shard_file(0).read_bytes())
    data[len(data) // 2] ^= 1
    table.shard_file(0).write_bytes(data)
    with pytest.raises(RefusedInput, match=r"'shard-000000\.parquet' is not the file that shards\.jsonl speaks of"):
        table.read(0)


def test_a_shard_that_was_written_again_is_not_the_one_that_was_made(tmp_path: Path) -> None:
    table = _table(tmp_path)
    _fill(table, 0, ONE)
    file = table.shard_file(0)
    rows = pq.read_table(file).to_pylist()
    rows[0]["values"] = [9.0 for _ in rows[0]["values"]]
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    with pytest.raises(RefusedInput, match=r"'shard-000000\.parquet' is not the file that shards\.jsonl speaks of"):
        table.read(0)


def test_a_line_without_a_digest_is_no_shard(tmp_path: Path) -> None:
    table = _table(tmp_path)
    _fill(table, 0, ONE)
    lines = [{"shard": 0, "rows": 1}, {"shard": [0], "rows": 1, "digest": "0"}, {"shard": math.nan, "rows": 1}]
    (tmp_path / "shards.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "[" * 100_000)
    assert table.missing_shards() == [0, 1, 2]


@pytest.mark.parametrize("name", ["table.json", "shards.jsonl"])
def test_what_bears_the_name_of_a_file_of_the_table_and_is_none_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(RefusedInput, match=f"{name} in it is no plain file"):
        _table(tmp_path)


@pytest.mark.parametrize("values", [np.zeros(2), np.zeros((1, 2), dtype=np.float32)])
def test_only_float32_vectors_are_taken(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a float32 vector"), _table(tmp_path).begin(0) as writer:
        writer.add("u", 0, values)


def test_a_shard_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard = 3: must be from 0 to 2"):
        _table(tmp_path).begin(3)


def _store(folder: Path) -> PreferenceStore:
    rows = [text_instruction(n, num_responses=n % 3) for n in range(20)]
    return written(folder, rows, group_rows=2)


def _table_of(store: PreferenceStore, folder: Path) -> SideTable:
    """Row n, response k, has the numbers n, k."""
    table = _table(folder, num_shards=len(store.groups))
    for shard in table.missing_shards():
        with table.begin(shard) as writer:
            for row in store.read_group(shard):
                for index in range(len(row.responses)):
                    writer.add(row.uid, index, np.array([int(row.uid[2:]), index], dtype=np.float32))
    return table


def test_a_table_is_joined_to_the_rows_in_any_order(tmp_path: Path) -> None:
    store = _store(tmp_path / "store")
    table = _table_of(store, tmp_path / "side")
    rows = list(store.iterate("train", seed=3, start=5, side_tables={"ref_logprobs": table}))
    assert len(rows) == 15
    for row in rows:
        expected = [[int(row.uid[2:]), index] for index in range(len(row.responses))]
        assert [values.tolist() for values in row.side["ref_logprobs"]] == expected


def test_a_table_of_other_responses_and_an_unfinished_one_are_refused(tmp_path: Path) -> None:
    store = _store(tmp_path / "store")
    table = _table(tmp_path / "side", num_shards=len(store.groups))
    with pytest.raises(RefusedInput, match="lacks shard"):
        list(store.iterate("train", seed=0, side_tables={"ref_logprobs": table}))
    for shard in table.missing_shards():
        _fill(table, shard, ONE)
    with pytest.raises(RefusedInput, match=r"side table 'ref_logprobs' in .* speaks of other responses than the store"):
        list(store.iterate("train", seed=0, side_tables={"ref_logprobs": table}))
