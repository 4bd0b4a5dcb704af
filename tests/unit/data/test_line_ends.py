"""The same rows, however an editor saved them: nothing is lost and nothing is silent."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.data.__main__ import main
from orchestrator.errors import RefusedInput
from tests.unit.data.rows import read, row, text, write_jsonl

_ROWS = [row(text("a\u2028b\u0085c\u2029d"), answer="1"), row(text("é \U0001f600\u200b"), answer="2")]
_PLAIN = "\n".join(json.dumps(r, ensure_ascii=False) for r in _ROWS)


@pytest.mark.parametrize(
    "saved",
    [_PLAIN, _PLAIN + "\n", _PLAIN.replace("\n", "\r\n") + "\r\n", "\ufeff" + _PLAIN, f"\n \r\n{_PLAIN}\n\n\t\n"],
    ids=["no last end", "unix", "windows", "mark", "blank lines"],
)
def test_a_file_reads_the_same_however_it_was_saved(tmp_path: Path, saved: str) -> None:
    (tmp_path / "d.jsonl").write_bytes(saved.encode())
    found = read(tmp_path / "d.jsonl")
    assert found.bad_rows == ()
    assert [(p.messages, p.label) for p in found.prompts] == [
        (p.messages, p.label) for p in read(write_jsonl(tmp_path / "e.jsonl", *_ROWS)).prompts
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(said=st.lists(st.text(st.characters(codec="utf-8"), min_size=1).map(lambda t: f"x{t}"), min_size=1, max_size=5))
def test_any_words_come_back_as_they_are(tmp_path: Path, said: list[str]) -> None:
    lines = [json.dumps(row(text(words)) | {"message": _asked(words)}, ensure_ascii=False) for words in said]
    for end in ("\n", "\r\n"):
        (tmp_path / "d.jsonl").write_bytes(end.join(lines).encode())
        found = read(tmp_path / "d.jsonl")
        assert [p.messages[0]["content"][0]["text"] for p in found.prompts] == said


def _asked(words: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": words}]


def test_a_file_of_old_macs_is_not_taken_for_one_row(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(_PLAIN.replace("\n", "\r").encode())
    (bad,) = read(tmp_path / "d.jsonl").bad_rows
    assert bad.row == 1 and bad.reason.startswith("not valid JSON: Extra data at ")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "d.jsonl").write_bytes(json.dumps(row(note="é"), ensure_ascii=False).encode(encoding))
    with pytest.raises(RefusedInput, match="is not UTF-8 text"):
        read(tmp_path / "d.jsonl")


def test_one_row_and_rows_that_are_all_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(write_jsonl(tmp_path / "one.jsonl", row()))]) == 0
    assert main(["check", str(write_jsonl(tmp_path / "bad.jsonl", row(answer="3"), {}))]) == 2
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["read as r1_reward", "rows    1: 1 good, 0 bad"]
    assert "rows    2: 0 good, 2 bad" in told
