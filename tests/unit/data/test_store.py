"""The store on disk: what comes back, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.data.records import Instruction, Response, prompt_of
from orchestrator.data.rows import BadRow
from orchestrator.data.store import PreferenceStore
from orchestrator.data.writer import import_file
from orchestrator.errors import RefusedInput
from tests.unit.data.rows import picture, write_jsonl
from tests.unit.data.store_rows import imported, plain, records, source, text_instruction, written

ROOT = Path(__file__).parents[3]


def _refusal(folder: Path) -> str:
    with pytest.raises(RefusedInput) as refusal:
        PreferenceStore(folder)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    """Twelve rows in row groups of three."""
    return written(tmp_path / "store", map(text_instruction, range(12)), group_rows=3)


def test_what_was_read_comes_back(tmp_path: Path) -> None:
    picture(tmp_path / "sub" / "a.png")
    rows = [plain(image="sub/a.png", id="x"), plain(prompt="none"), plain(prompt="two <image>", images=["sub/a.png"])]
    made = imported(tmp_path, "plain_dpo", *rows)
    assert list(made.rows()) == records(tmp_path, "plain_dpo", *rows)
    assert made.manifest.counts.model_dump() == {
        "instructions": 3, "responses": 6, "unvalued_responses": 0, "bad_rows": 0
    }  # fmt: skip
    assert (made.manifest.reader, made.manifest.source_name) == ("plain_dpo", "d.jsonl")


def test_every_field_of_a_response_comes_back(tmp_path: Path) -> None:
    responses = (
        Response(text="", score=13 / 3, critique="so", corrected_spans=(), provenance="m"),
        Response(text="seven", rank=2, corrected_spans=((0, 2), (2, 5))),
        Response(text="a\u2028\x00é"),
    )
    base = text_instruction(1)
    row = Instruction(
        uid="r-1", split="train", messages=base.messages, media=(), responses=responses, meta={"a": [1, {"b": None}]}
    )
    assert list(written(tmp_path / "s", [row], group_rows=2).rows()) == [row]


def test_instructions_without_responses_are_kept(tmp_path: Path) -> None:
    rows = [text_instruction(n, num_responses=count) for n, count in enumerate((0, 0, 2, 0, 1))]
    made = written(tmp_path / "s", rows, group_rows=2)
    assert list(made.rows()) == rows
    assert {row.uid: row for row in made.iterate("train", seed=1)} == {row.uid: row for row in rows}


def test_a_prompt_finds_its_images_under_the_root_that_is_given(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    made = imported(tmp_path, "plain_dpo", plain(image="a.png"))
    (row,) = made.rows()
    assert prompt_of(row, media_root=made.media_root).media[0].path == str(tmp_path / "a.png")
    moved = PreferenceStore(made.folder, media_root=tmp_path / "elsewhere")
    assert prompt_of(row, media_root=moved.media_root).media[0].path == str(tmp_path / "elsewhere" / "a.png")


def test_bad_rows_are_kept_aside_with_their_numbers(tmp_path: Path) -> None:
    made = imported(tmp_path, "plain_dpo", plain(), plain(chosen=3), plain(prompt="b"), max_bad_frac=0.4)
    assert [row.uid for row in made.rows()] == ["d-000001", "d-000003"]
    assert made.bad_rows() == [BadRow(2, "field 'chosen' is 3, expected text")]
    assert made.manifest.counts.bad_rows == 1
    lines = (made.folder / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"row": 2, "reason": "field 'chosen' is 3, expected text"}]


def test_too_many_bad_rows_refuse_the_file_and_leave_no_store(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", plain(), plain(chosen=3), plain(prompt="b"))
    with pytest.raises(RefusedInput) as refusal:
        import_file(source(file, "plain_dpo"), out=tmp_path / "store", held_out_frac=0.0, max_bad_frac=0.3)
    assert str(refusal.value) == (
        f"data file {str(file)!r} has 1 bad rows out of 3, --max-bad-frac = 0.3 allows 0; "
        "the first is row 2: field 'chosen' is 3, expected text"
    )
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_folder_without_a_manifest_is_no_store(store: PreferenceStore, tmp_path: Path) -> None:
    (store.folder / "manifest.json").unlink()
    problem = "has no manifest.json: it does not exist, or was never finished"
    assert _refusal(store.folder) == f"store {str(store.folder)!r} {problem}"
    assert _refusal(tmp_path / "none") == f"store {str(tmp_path / 'none')!r} {problem}"


def _edit(store: PreferenceStore, *path: str | int, value: object) -> None:
    file = store.folder / "manifest.json"
    stored = place = json.loads(file.read_text())
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    file.write_text(json.dumps(stored))


def test_a_count_that_disagrees_is_refused(store: PreferenceStore) -> None:
    name = f"store {str(store.folder)!r}"
    _edit(store, "counts", "responses", value=25)
    assert _refusal(store.folder) == f"{name}: its files have 24 responses, counts.responses in its manifest is 25"
    _edit(store, "parts", 0, "row_groups", 1, value=[4, 6])
    expected = "'instructions/train-00000.parquet' has 12 rows in 4 row groups, its manifest says 13 in 4"
    assert _refusal(store.folder) == f"{name}: {expected}"


def test_another_version_and_a_bad_manifest_are_refused(store: PreferenceStore) -> None:
    name = f"store {str(store.folder)!r}"
    _edit(store, "counts", "responses", value="many")
    assert _refusal(store.folder).startswith(f"{name} has a bad manifest.json: counts.responses: Input should be")
    _edit(store, "schema_version", value=1)
    assert _refusal(store.folder) == f"{name} has schema_version 1, expected 2: import its file again"
    (store.folder / "manifest.json").write_text("{")
    assert _refusal(store.folder) == f"{name} has a manifest.json that is not JSON"


def test_a_file_that_is_gone_or_cut_short_is_refused(store: PreferenceStore) -> None:
    name = f"store {str(store.folder)!r}"
    file = store.folder / "responses" / "train-00000.parquet"
    file.write_bytes(file.read_bytes()[:-10])
    assert _refusal(store.folder).startswith(f"{name}: 'responses/train-00000.parquet' is damaged (")
    file.unlink()
    expected = "lacks the file 'responses/train-00000.parquet' that its manifest names"
    assert _refusal(store.folder) == f"{name} {expected}"


def test_a_flipped_bit_never_changes_a_row_in_silence(store: PreferenceStore) -> None:
    file = store.folder / "responses" / "train-00000.parquet"
    data, rows = file.read_bytes(), store.read_group(2)
    column = pq.read_metadata(file).row_group(2).column(2)  # the texts
    start = min(column.dictionary_page_offset or column.data_page_offset, column.data_page_offset)
    noticed = 0
    for place in range(start, start + column.total_compressed_size):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            opened = PreferenceStore(store.folder)
            assert opened.read_group(2) == rows  # what a page says of itself may change and mean the same
        except RefusedInput as refusal:
            assert "'responses/train-00000.parquet' is damaged" in str(refusal)
            noticed += 1
    assert noticed > column.total_compressed_size // 2


def test_responses_of_other_instructions_are_refused(store: PreferenceStore, tmp_path: Path) -> None:
    other = written(tmp_path / "other", map(text_instruction, range(12, 24)), group_rows=3)
    shutil.copy(other.folder / "responses" / "train-00000.parquet", store.folder / "responses")
    expected = "row group 0 of 'responses/train-00000.parquet' does not answer the instructions beside it"
    with pytest.raises(RefusedInput, match=expected):
        list(PreferenceStore(store.folder).rows())


def test_uids_ascend_and_splits_follow_their_rule(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uid 't-000001' does not follow 't-000001': uids ascend, shorter ones first"):
        written(tmp_path / "s", [text_instruction(1), text_instruction(1)], group_rows=2)
    row = text_instruction(1)
    wrong = Instruction(uid=row.uid, split="held_out", messages=row.messages, media=(), responses=())
    with pytest.raises(ValueError, match="is in split 'held_out', its prompt belongs in 'train'"):
        written(tmp_path / "s", [wrong], group_rows=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score": float("nan")}, "score = nan: must be finite"),
        ({"rank": 0}, "rank = 0: must be at least 1"),
        ({"corrected_spans": ((2, 4),)}, "corrected span .2, 4.: must be in order, without overlap and within 3"),
        ({"corrected_spans": ((0, 2), (1, 3))}, "corrected span .1, 3.: must be in order"),
    ],
)
def test_a_response_that_cannot_be_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Response(text="abc", **fields)


def test_a_folder_that_is_taken_is_refused_and_left_alone(store: PreferenceStore, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", plain())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for out, problem in ((store.folder, "already holds a store"), (tmp_path / "mine", "is not empty: it holds")):
        with pytest.raises(RefusedInput, match=problem):
            import_file(source(file, "plain_dpo"), out=out, held_out_frac=0.0, max_bad_frac=0.0)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert len(list(PreferenceStore(store.folder).rows())) == 12


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.data.store_rows import text_instruction, written
def rows():
    for n in range(300):
        if n == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield text_instruction(n)
written(Path(sys.argv[1]), rows(), group_rows=2)
"""


@pytest.mark.parametrize("killed_at", [1, 50, 299])  # no row group, a part, two parts and an open one
def test_what_a_killed_import_leaves_is_no_store_and_is_cleared_by_the_next(tmp_path: Path, killed_at: int) -> None:
    folder = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", _KILLED, str(folder), str(killed_at)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert "has no manifest.json" in _refusal(folder)
    again = written(folder, map(text_instruction, range(10)), group_rows=2)  # less than was there
    names = {part.file(table) for part in again.manifest.parts for table in ("instructions", "responses")}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == names | {"manifest.json", "quarantine.jsonl"}
    assert list(again.rows()) == [text_instruction(n) for n in range(10)]


def test_a_long_store_is_in_several_files(tmp_path: Path) -> None:
    made = written(tmp_path / "s", map(text_instruction, range(300)), group_rows=2)
    assert [len(part.row_groups) for part in made.manifest.parts] == [64, 64, 22]
    assert [row.uid for row in made.rows()] == [text_instruction(n).uid for n in range(300)]


def test_the_fingerprint_follows_the_rows_and_the_bytes_of_their_images(tmp_path: Path) -> None:
    def fingerprint(name: str, color: str, **fields: str) -> str:
        picture(tmp_path / name / "a.png", color=color)
        return imported(tmp_path / name, "plain_dpo", plain(image="a.png", **fields)).manifest.fingerprint

    first = fingerprint("1", "red")
    assert fingerprint("2", "red") == first
    assert len({first, fingerprint("3", "blue"), fingerprint("4", "red", chosen="the other")}) == 3


def test_a_row_is_found_by_its_uid(store: PreferenceStore) -> None:
    assert store.find("t-000007") == [text_instruction(7)]
    assert store.find("t-000012") == []


def test_a_path_that_leaves_the_media_root_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    made = imported(tmp_path, "plain_dpo", plain(image="a.png"))
    file = made.folder / "instructions" / "train-00000.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[0]["media"][0]["path"] = "../a.png"
    pq.write_table(pq.read_table(file).from_pylist(rows, schema=pq.read_schema(file)), file)
    with pytest.raises(RefusedInput, match=r"media path '\.\./a\.png' leaves the media root"):
        list(PreferenceStore(made.folder).rows())


def _rewritten(store: PreferenceStore, table: str, change: Callable[[list[dict[str, Any]]], object]) -> str:
    """Write a table's file again, as good Parquet with as many rows in as many groups, and open the store anew."""
    file = store.folder / table / "train-00000.parquet"
    rows = pq.read_table(file).to_pylist()
    change(rows)
    made = pa.Table.from_pylist(rows, schema=pq.read_schema(file))
    groups = [g[table == "responses"] for g in store.manifest.parts[0].row_groups]
    with pq.ParquetWriter(file, made.schema) as writer:
        for size in groups:
            writer.write_table(made.slice(0, size), row_group_size=size)
            made = made.slice(size)
    opened = PreferenceStore(store.folder)
    with pytest.raises(RefusedInput) as refusal:
        next(opened.iterate("train", seed=0))
    return str(refusal.value).removeprefix(f"store {str(store.folder)!r}")


_ELSE = '[{"role":"user","content":[{"type":"text","text":"else"}]}]'


@pytest.mark.parametrize(
    ("table", "column", "value", "told"),
    [
        ("responses", "text", "another answer", " holds other rows than its manifest.json says: their fingerprint is "),
        ("responses", "rank", 2, " holds other rows than its manifest.json says"),
        ("responses", "provenance", "somebody", " holds other rows than its manifest.json says"),
        ("instructions", "messages", _ELSE, " holds other rows than its manifest.json says"),
        ("instructions", "messages", '[{"role":"user","content":[{"type":"text"}]}]', " holds a row that is not one"),
        ("instructions", "messages", "[" * 100_000, " holds a row that is not one of ours"),
        ("instructions", "messages", "7", " holds a row that is not one of ours"),
        ("instructions", "meta", "[]", " holds a row that is not one of ours: its meta is []"),
        ("instructions", "meta", '{"label": "2"}', " holds other rows than its manifest.json says"),
        ("instructions", "meta", None, ": row group 0 of 'instructions/train-00000.parquet' or "),
        ("instructions", "num_responses", -2, ": row group 0 of 'responses/train-00000.parquet' does not answer"),
    ],
)
def test_a_store_that_was_rewritten_gives_nobody_a_row(
    table: str, column: str, value: Any, told: str, store: PreferenceStore
) -> None:
    said = _rewritten(store, table, lambda rows: rows[0].update({column: value}))
    assert said.startswith(told) and "\n" not in said, said


def test_responses_in_another_order_are_other_rows(store: PreferenceStore) -> None:
    def swap(rows: list[dict[str, Any]]) -> None:
        rows[:2] = rows[1::-1]

    assert _rewritten(store, "responses", swap).startswith(" holds other rows than its manifest.json says")


def test_a_file_with_other_columns_is_refused(store: PreferenceStore) -> None:
    file = store.folder / "responses" / "train-00000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["rank"]), file, row_group_size=6)
    assert _refusal(store.folder).endswith("'responses/train-00000.parquet' has other columns than a store")


def test_a_file_that_changes_while_the_store_is_open_is_not_read(store: PreferenceStore) -> None:
    list(store.rows())
    file = store.folder / "responses" / "train-00000.parquet"
    file.write_bytes(file.read_bytes())
    with pytest.raises(RefusedInput, match=r"'responses/train-00000.parquet' has changed since the store was opened"):
        list(store.iterate("train", seed=0))


def test_a_score_that_a_reader_gave_as_a_whole_number_is_the_number_that_comes_back(tmp_path: Path) -> None:
    base = text_instruction(1)
    row = replace(base, responses=(Response(text="a", score=3), Response(text="b", score=1)))
    (found,) = written(tmp_path / "s", [row], group_rows=2).rows()
    assert [response.score for response in found.responses] == [3.0, 1.0]


def test_files_appear_under_their_names_only_when_they_are_whole(tmp_path: Path) -> None:
    seen: set[str] = set()

    def rows():
        for n in range(10):
            yield text_instruction(n)
            seen.update(name for _, _, names in os.walk(tmp_path) for name in names)

    written(tmp_path / "s", rows(), group_rows=2)
    assert seen == {".train-00000.parquet.partial"}
