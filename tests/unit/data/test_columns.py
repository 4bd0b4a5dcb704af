"""Other people's column names: a table of the user's words says which column is which."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.config import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.__main__ import main
from orchestrator.data.reading import Dataset, read_prompts, read_records
from orchestrator.data.recognising import with_format
from orchestrator.data.records import Instruction
from orchestrator.data.source_file import source_file
from orchestrator.data.store import PreferenceStore
from orchestrator.errors import RefusedInput
from tests.unit.data.rows import picture, write_jsonl

_ROWS = [{"task_text": "what is it ?", "pic": "a.png", "gold": 7}, {"task_text": "and <image> ?", "pic": "a.png"}]
_MAP = ("problem=task_text", "image=pic", "answer=gold")


def _config(file: Path, *pairs: str, algo: str = "grpo") -> TrainConfig:
    argv = ["--algo", algo, "--model.path", "model", "--data.path", str(file), "--data.map", *pairs]
    return with_format(load_config(argv)[0])


def _read(file: Path, *pairs: str) -> Dataset:
    return read_prompts(source_file(_config(file, *pairs), str(file)))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_file_of_other_names_is_known_and_read(kind: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    file = tmp_path / f"d.{kind}"
    if kind == "jsonl":
        write_jsonl(file, *_ROWS)
    else:
        pq.write_table(pa.Table.from_pylist(_ROWS), file)
    assert _config(file, *_MAP).data.format == "task"
    found = _read(file, *_MAP)
    assert not found.bad_rows and [p.label for p in found.prompts] == ["7", None]
    assert [part["type"] for part in found.prompts[0].messages[0]["content"]] == ["image", "text"]
    assert found.notes.unknown_keys == {}


def test_pairs_of_other_names_become_a_store_and_a_run_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", {"q": "what ?", "good one": "yes .", "bad one": "no ."})
    words = ["--map", "question=q", "chosen=good one", "rejected=bad one"]
    assert main(["check", str(file), *words]) == 0
    assert main(["show", str(file), "--row", "1", *words]) == 0
    assert main(["import", str(file), "--out", str(tmp_path / "store"), *words]) == 0
    assert capsys.readouterr().out.count("read as pairs") == 3
    (row,) = PreferenceStore(tmp_path / "store").rows()
    assert [(r.text, r.rank) for r in row.responses] == [("yes .", 1), ("no .", 2)]
    config = _config(file, *words[1:], algo="dpo")
    assert config.offline and config.data.format == "pairs"
    (read,) = read_records(source_file(config, str(file)))
    assert isinstance(read, Instruction) and read.responses == row.responses


def test_rows_are_put_together_by_a_column_of_another_name(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    common = {"pid": "a", "prompt": "what ?", "image": "a.png", "chosen_reason": "why"}
    file = write_jsonl(tmp_path / "d.jsonl", *({**common, "chosen": "best", "rejected": r} for r in ("bad", "worse")))
    (read,) = read_records(source_file(_config(file, "id=pid", algo="dpo"), str(file)))
    assert isinstance(read, Instruction) and len(read.responses) == 3


def test_two_columns_may_change_places(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", {"problem": "4", "answer": "two and two ?"})
    (prompt,) = _read(file, "problem=answer", "answer=problem").prompts
    assert (prompt.label, prompt.meta["question"]) == ("4", "two and two ?")


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (("problem=text",), "data.map: no row of '{file}' has the column of problem = 'text'"),
        (("problem=task", "answer=id"), "data.map: row 1 has a column 'answer' of its own, 5, beside 'id'"),
        (("problem",), "--data.map has 'problem', expected NAME=COLUMN, such as prompt=problem"),
        (("a=b", "a=c"), "--data.map has 'a' twice: 'b' and 'c'"),
        (("a=b", "c=b"), "column 'b' has two names in it, expected one"),
    ],
)
def test_a_table_that_does_not_fit_the_file_is_refused(pairs: tuple[str, ...], told: str, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", {"task": "t", "answer": 5, "id": 1, "gold": None})
    with pytest.raises(RefusedInput) as refused:
        _read(file, *pairs)
    assert told.format(file=file) in str(refused.value) and "\n" not in str(refused.value)


def test_an_empty_column_stands_in_nobodys_way(tmp_path: Path) -> None:
    file = tmp_path / "d.parquet"
    pq.write_table(pa.Table.from_pylist([{"problem": None, "q": "what ?", "answer": "a"}]), file)
    (prompt,) = _read(file, "problem=q").prompts
    assert prompt.meta["question"] == "what ?"


def test_a_table_in_a_file_says_the_same(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", *_ROWS)
    (tmp_path / "c.toml").write_text('[data.map]\nproblem = "task_text"\nimage = "pic"\nanswer = "gold"\n')
    argv = ["--algo", "grpo", "--model.path", "m", "--data.path", str(file), "--config", str(tmp_path / "c.toml")]
    assert load_config(argv)[0].data.map == _config(file, *_MAP).data.map
    with pytest.raises(RefusedInput, match=r"data\.map = 'x'.*: expected a table"):
        (tmp_path / "c.toml").write_text('[data]\nmap = "x"\n')
        load_config(argv)
