"""Folders of shards, and those that ``datasets`` saves: one file to whoever reads them, and never a store."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.config import TrainConfig, load_config
from orchestrator.data.__main__ import main
from orchestrator.data.prompts import read_data
from orchestrator.data.recognising import with_format
from orchestrator.data.shards import data_sha256
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stores import open_data
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main as train
from tests.unit.data.rows import picture, write_jsonl

Rows = Sequence[dict[str, Any]]
_ASKED = [{"problem": f"{n} <image> ?", "answer": str(n), "image": "a.png"} for n in range(5)]
_PAIRS = [{"question": f"{n} ?", "chosen": f"good {n}", "rejected": "bad", "image": "a.png"} for n in range(5)]


def _parquet(folder: Path, shards: Sequence[Rows]) -> None:
    for number, rows in enumerate(shards):
        name = f"train-{number:05d}-of-{len(shards):05d}.parquet"
        pq.write_table(pa.Table.from_pylist(list(rows)), folder / name)


def _jsonl(folder: Path, shards: Sequence[Rows]) -> None:
    for number, rows in enumerate(shards):
        write_jsonl(folder / f"part-{number}.jsonl", *rows)


def _json(folder: Path, shards: Sequence[Rows]) -> None:
    for number, rows in enumerate(shards):
        (folder / f"{number}.json").write_text(json.dumps(list(rows)))


def _saved(folder: Path, shards: Sequence[Rows]) -> None:
    """As ``Dataset.save_to_disk`` writes it: Arrow streams, whose order the state has."""
    names = [f"data-{number:05d}-of-{len(shards):05d}.arrow" for number in range(len(shards))]
    for name, rows in zip(names, shards, strict=True):
        table = pa.Table.from_pylist(list(rows))
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


_KINDS = pytest.mark.parametrize("write", [_parquet, _jsonl, _json, _saved])
Write = Callable[[Path, Sequence[Rows]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    picture(tmp_path / "mine" / "a.png")
    return tmp_path / "mine"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_digits_model(tmp_path_factory.mktemp("shards") / "model", seed=0))


def _config(algo: str, folder: Path, model: str) -> TrainConfig:
    return with_format(load_config(["--algo", algo, "--model.path", model, "--data.path", str(folder)])[0])


@_KINDS
def test_shards_are_one_file_of_prompts(write: Write, folder: Path, model: str) -> None:
    write(folder, [_ASKED[:2], _ASKED[2:3], _ASKED[3:]])
    config = _config("grpo", folder, model)
    assert config.online and config.data.format == "task"
    found = read_data(config).train
    assert [p.label for p in found.prompts] == list("01234") and not found.bad_rows
    assert [p.uid for p in found.prompts] == [f"mine-{n:06d}" for n in range(1, 6)]
    assert all(len(p.media) == 1 for p in found.prompts)


@_KINDS
def test_shards_are_one_file_of_preferences(
    write: Write, folder: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, [_PAIRS[:4], _PAIRS[4:]])
    config = _config("dpo", folder, model)
    data = open_data(config, RunFolder(tmp_path / "run"))
    assert [row.responses[0].text for row in data.train.rows()] == [f"good {n}" for n in range(5)]
    assert open_data(config, RunFolder(tmp_path / "run")).train.manifest == data.train.manifest
    assert main(["import", str(folder), "--out", str(tmp_path / "store")]) == 0
    assert PreferenceStore(tmp_path / "store").manifest.fingerprint == data.train.manifest.fingerprint
    assert main(["show", str(folder), "--row", "5"]) == 0
    assert "good 4" in capsys.readouterr().out
    with (folder / "more.jsonl").open("w") as file:  # another file in the folder is another import
        file.write(json.dumps(_PAIRS[0]) + "\n")
    if write is _jsonl:
        with pytest.raises(RefusedInput, match="was imported from another file"):
            open_data(config, RunFolder(tmp_path / "run"))


def test_a_bad_row_is_named_by_its_shard_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _jsonl(folder, [_ASKED[:2], [_ASKED[2], {**_ASKED[3], "answer": {"a": 1}}, {**_ASKED[4], "image": "gone.png"}]])
    with (folder / "part-1.jsonl").open("a") as file:
        file.write("{\n")
    assert main(["check", str(folder)]) == 2
    told = capsys.readouterr().out.splitlines()
    places = [f"row {n + 2}:" for n in (2, 3, 4)]
    bad = [line for line in told if line.startswith(tuple(places))]
    assert len(bad) == 3
    assert all(f" (row {n} of 'part-1.jsonl')" in line for n, line in zip((2, 3, 4), sorted(bad), strict=True))


def test_rows_that_are_one_instruction_may_stand_in_two_shards(folder: Path, tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "what ?", "image": "a.png", "chosen": "best", "rejected": r, "chosen_reason": "why"}
            for r in ("bad", "worse")]  # fmt: skip
    _jsonl(folder, [rows[:1], rows[1:]])
    assert main(["import", str(folder), "--out", str(tmp_path / "store")]) == 0
    (row,) = PreferenceStore(tmp_path / "store").rows()
    assert len(row.responses) == 3


def test_saved_shards_are_read_in_the_order_that_was_noted(folder: Path, model: str) -> None:
    _saved(folder, [_ASKED[:2], _ASKED[2:]])
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({"_data_files": state["_data_files"][::-1]}))
    found = read_data(_config("grpo", folder, model)).train
    assert [p.label for p in found.prompts] == list("23401")


def _splits_apart(folder: Path) -> None:
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))


def _two_kinds(folder: Path) -> None:
    _jsonl(folder, [_ASKED])
    _json(folder, [_ASKED])


def _two_splits(folder: Path) -> None:
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        write_jsonl(folder / f"{name}.jsonl", *_ASKED)


def _one_missing(folder: Path) -> None:
    _saved(folder, [_ASKED[:2], _ASKED[2:]])
    (folder / "data-00001-of-00002.arrow").unlink()


def _a_selection(folder: Path) -> None:
    _saved(folder, [_ASKED])
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "_indices_data_files": [{"filename": "indices.arrow"}]}))


def _broken(folder: Path) -> None:
    _saved(folder, [_ASKED])
    (folder / "data-00000-of-00001.arrow").write_bytes(b"no table at all")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_splits_apart, "holds the splits train, test: name the folder of one"),
        (_two_kinds, "holds .json and .jsonl files, expected shards of one kind"),
        (_two_splits, "holds more than one split ('test-00000-of-00001.jsonl', 'train-00000-of-00001.jsonl')"),
        (_one_missing, "lacks 'data-00001-of-00002.arrow', which its state.json names"),
        (_a_selection, "was saved with a selection apart"),
        (_broken, "cannot be read as Arrow"),
    ],
)
@pytest.mark.parametrize("algo", ["grpo", "dpo"])
def test_a_folder_that_is_not_one_file_is_refused(
    algo: str, make: Callable[[Path], None], told: str, folder: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(folder)
    assert train(["--dry_run", "--algo", algo, "--model.path", model, "--data.path", str(folder)]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_a_broken_store_is_no_folder_of_shards(folder: Path, model: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", *({**pair, "image": "mine/a.png"} for pair in _PAIRS))
    assert main(["import", str(tmp_path / "d.jsonl"), "--out", str(tmp_path / "store")]) == 0
    (tmp_path / "store" / "manifest.json").unlink()
    with pytest.raises(RefusedInput, match="it does not exist, or was never finished"):
        open_data(_config("dpo", tmp_path / "store", model), RunFolder(tmp_path / "run"))


def test_the_digest_of_a_folder_is_of_names_and_bytes(folder: Path) -> None:
    _jsonl(folder, [_ASKED[:2], _ASKED[2:]])
    before = data_sha256(folder)
    (folder / "part-1.jsonl").rename(folder / "part-2.jsonl")
    moved = data_sha256(folder)
    write_jsonl(folder / "part-2.jsonl", *_ASKED)
    assert len({before, moved, data_sha256(folder)}) == 3
