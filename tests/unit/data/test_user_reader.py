"""A reader in a file of the user's, and one that is a line of the table: for online and offline runs alike."""

import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from orchestrator import train
from orchestrator.config import load_config
from orchestrator.config.formats import FORMATS, DataFormat, Format
from orchestrator.config.plugins import plugin_digest
from orchestrator.data.__main__ import main
from orchestrator.data.prompts import read_data
from orchestrator.data.reading import read_prompts, read_records
from orchestrator.data.records import Instruction
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stores import open_data
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder
from tests.unit.data.rows import picture, read, source, write_jsonl

TOY = """
from orchestrator.data.readers.draft import Draft
from orchestrator.data.records import Response

def read(row):
    pictures = [{"type": "image", "image": name} for name in row.get("pictures", ())]
    turn = {"role": "user", "content": [*pictures, {"type": "text", "text": row["ask"]}]}
    said = tuple(Response(text=text, rank=place) for place, text in enumerate(row.get("best_first", ()), start=1))
    return Draft(turns=(turn,), responses=said, label=row.get("right"))
"""
_ROWS = (
    {"ask": "how many ?", "right": "three", "best_first": ["three", "two"]},
    {"ask": "which ?", "right": "red", "best_first": ["red", "blue", "green"]},
)


@pytest.fixture
def toy(tmp_path: Path) -> str:
    (tmp_path / "my.py").write_text(TOY)
    return f"{tmp_path / 'my.py'}:read"


def _config(algo: str, file: Path, reader: str, *flags: str):
    run = ("--model.path", "model", "--data.path", str(file), "--data.reader", reader)
    return load_config(["--algo", algo, *run, *flags])[0]


def test_an_online_run_reads_its_prompts_through_it(tmp_path: Path, toy: str) -> None:
    rows = [*_ROWS, {"ask": "is it said ?", "best_first": ["yes"]}]
    data = read_data(_config("stable_reinforce", write_jsonl(tmp_path / "d.jsonl", *rows), toy))
    assert [(p.uid, p.label, p.target) for p in data.train.prompts] == [
        ("d-000001", "three", None),
        ("d-000002", "red", None),
        ("d-000003", None, "yes"),
    ]
    assert data.train.prompts[0].messages == ({"role": "user", "content": [{"type": "text", "text": "how many ?"}]},)


def test_a_prompt_has_the_pictures_that_it_names(tmp_path: Path, toy: str) -> None:
    picture(tmp_path / "a.png", size=(3, 2))
    file = write_jsonl(tmp_path / "d.jsonl", {"ask": "which ?", "pictures": ["a.png"]}, {"ask": "?", "pictures": ["b"]})
    found = read_prompts(source(file, toy))
    (prompt,) = found.prompts
    assert [part["type"] for part in prompt.messages[0]["content"]] == ["image", "text"]
    assert (prompt.media[0].width, prompt.media[0].height) == (3, 2)
    assert [bad.row for bad in found.bad_rows] == [2]


def test_another_reader_is_another_dataset(tmp_path: Path, toy: str) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", *_ROWS)
    before = read_prompts(source(file, toy))
    (tmp_path / "my.py").write_text(TOY + "# the same rows\n")
    after = read_prompts(source(file, toy))
    assert after.prompts == before.prompts and after.fingerprint != before.fingerprint


def test_an_offline_run_imports_by_it_once(tmp_path: Path, toy: str) -> None:
    file, folder = write_jsonl(tmp_path / "d.jsonl", *_ROWS), RunFolder(tmp_path / "run")
    folder.root.mkdir()
    data = open_data(_config("dpo", file, toy), folder)
    assert data.learnable.num_pairs == 4
    assert data.train.manifest.reader == f"{toy} {plugin_digest(toy, option='data.reader')}"
    assert open_data(_config("dpo", file, toy), folder).train.manifest == data.train.manifest
    (tmp_path / "my.py").write_text(TOY + "# changed\n")
    with pytest.raises(RefusedInput, match=r"store' was imported from another file than .*d\.jsonl'; use another run"):
        open_data(_config("dpo", file, toy), folder)


def test_supervised_learning_imitates_the_best_of_its_responses(tmp_path: Path, toy: str) -> None:
    file, folder = write_jsonl(tmp_path / "d.jsonl", *_ROWS), RunFolder(tmp_path / "run")
    folder.root.mkdir()
    assert open_data(_config("sft", file, toy), folder).learnable.num_learned == 2


def test_files_are_checked_shown_and_imported_by_it(
    tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = str(write_jsonl(tmp_path / "d.jsonl", *_ROWS, {"question": "?"})), str(tmp_path / "store")
    assert main(["check", file, "--reader", toy]) == 2
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"row 3: data.reader = {toy!r} fails on it (KeyError: 'ask')"
    assert main(["show", file, "--reader", toy, "--row", "1"]) == 0
    assert "label  three\nuser:\n  how many ?\n" in capsys.readouterr().out
    assert main(["import", file, "--reader", toy, "--out", out, "--max-bad-frac", "0.5"]) == 0
    assert [row.meta for row in PreferenceStore(Path(out)).rows()] == [{"label": "three"}, {"label": "red"}]
    assert main(["import", file, "--out", out]) == 2
    assert "refused: --format is not set, nor is --reader" in capsys.readouterr().err


def test_several_rows_may_be_one_instruction(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(
        "from orchestrator.data.readers.draft import Draft\nfrom orchestrator.data.records import Response\n"
        "def read(rows):\n"
        "    asked = {'role': 'user', 'content': [{'type': 'text', 'text': rows[0].value['ask']}]}\n"
        "    return Draft(turns=(asked,), responses=tuple(Response(text=row.value['said']) for row in rows))\n"
        "read.rows_share = 'ask'\n"
    )
    said = (("a ?", "1"), ("b ?", "2"), ("a ?", "3"))
    file = write_jsonl(tmp_path / "d.jsonl", *({"ask": ask, "said": text} for ask, text in said))
    first, second = (row for row in read_records(source(file, f"{tmp_path / 'my.py'}:read")))
    assert isinstance(first, Instruction) and [response.text for response in first.responses] == ["1", "3"]
    assert isinstance(second, Instruction) and [response.text for response in second.responses] == ["2"]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("{'prompt': row}", 'makes {"prompt": {}} of it, expected a Draft or a tuple of them'),
        ("()", "makes [] of it, expected a Draft or a tuple of them"),
        (
            "Draft(turns=('which ?',))",
            'makes the turn "which ?" of it, expected a role of system, user or assistant, and',
        ),
        (
            "Draft(turns=({'role': 'user', 'content': [{'type': 'text'}]},))",
            "of it, expected a role of system, user or",
        ),
        ("Draft(turns=())", "the prompt has no turn of the user, expected one that asks something"),
    ],
)
def test_what_it_makes_must_be_drafts(tmp_path: Path, made: str, told: str) -> None:
    (tmp_path / "my.py").write_text(
        f"from orchestrator.data.readers.draft import Draft\ndef read(row):\n    return {made}\n"
    )
    found = read_prompts(source(write_jsonl(tmp_path / "d.jsonl", {}), f"{tmp_path / 'my.py'}:read"))
    assert told in found.bad_rows[0].reason


def test_a_file_that_does_not_give_it_ends_the_run_with_one_sentence(
    tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--algo", "dpo", "--model.path", "model", "--data.path", str(write_jsonl(tmp_path / "d.jsonl", *_ROWS))]
    for reader, told in (
        ("my:read", "data.reader = 'my:read': expected FILE.py:NAME"),
        (f"{toy}s", f"data.reader = '{toy}s': {str(tmp_path / 'my.py')!r} has nothing of the name 'reads'"),
    ):
        assert train.main([*flags, "--data.reader", reader]) == 2
        assert capsys.readouterr().err == f"refused: {told}\n"
    with pytest.raises(RefusedInput, match=r"^data\.path is not set, but data\.reader = '.*' belongs to it$"):
        load_config(["--algo", "dpo", "--data.reader", toy])


def test_rows_that_an_algorithm_does_not_learn_from_are_refused(tmp_path: Path, toy: str) -> None:
    (tmp_path / "my.py").write_text(f"{TOY}\nread.serves = ('preferences',)\n")
    with pytest.raises(RefusedInput) as refused:
        _config("stable_reinforce", tmp_path / "d.jsonl", toy)
    assert (
        str(refused.value)
        == f"data.reader = {toy!r} cannot serve algo = 'stable_reinforce', only 'llava_ppo', 'r1_reward', "
        "'task'"
    )
    (tmp_path / "my.py").write_text(f"{TOY}\nread.serves = ('rewards',)\n")
    with pytest.raises(RefusedInput, match=r"serves = \('rewards',\), expected some of 'prompts', 'demonstrations', "):
        _config("dpo", tmp_path / "d.jsonl", toy)


_PREFERENCES = (
    "'llava_preference', 'mm_rlhf', 'mm_rlhf_pairs', 'pairs', 'plain_dpo', 'plain_kto', 'rlhfv', 'vlfeedback'"
)


@pytest.mark.parametrize(
    ("algo", "form", "others"),
    [
        ("stable_reinforce", "plain_dpo", "'llava_ppo', 'r1_reward', 'task'"),
        ("dpo", "r1_reward", _PREFERENCES),
        ("kto", "vlquery_json", _PREFERENCES),
    ],
)
def test_a_format_serves_what_it_declares(tmp_path: Path, algo: str, form: str, others: str) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", {})
    with pytest.raises(RefusedInput) as refused:
        flags = ["--algo", algo, "--model.path", "model", "--data.path", str(file), "--data.format", form]
        open_data(load_config(flags)[0], RunFolder(tmp_path / "run"))
    assert str(refused.value) == f"data.format = {form!r} cannot serve algo = {algo!r}, only {others}"


def test_a_format_is_a_reader_and_a_line_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("toy")
    exec(TOY, module.__dict__)
    monkeypatch.setitem(sys.modules, "orchestrator.data.readers.toy", module)
    monkeypatch.setitem(FORMATS, "toy", Format("toy:read", ("prompts", "preferences")))
    assert get_args(DataFormat) == tuple(name for name in FORMATS if name != "toy")
    file = write_jsonl(tmp_path / "d.jsonl", *_ROWS)
    assert [prompt.label for prompt in read_prompts(source(file, "toy")).prompts] == ["three", "red"]
    instructions = [row for row in read_records(source(file, "toy")) if isinstance(row, Instruction)]
    assert [len(one.responses) for one in instructions] == [2, 3]


def test_a_format_of_the_table_has_the_fingerprint_of_its_rows_alone(tmp_path: Path) -> None:
    """A run that began before there were readers of the user's goes on."""
    found = read(write_jsonl(tmp_path / "d.jsonl", {"message": [{"role": "user", "content": "?a"}], "answer": "1"}))
    assert found.fingerprint == "efb4e7c2a839bb5b388a14f5ad20fc55bde0d2c6694353b9d9c756b6605ab1bd"
