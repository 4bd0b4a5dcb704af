"""Objects from files outside the repository."""

import os
from pathlib import Path

import pytest

from orchestrator.config.plugins import load_object, plugin_digest
from orchestrator.errors import RefusedInput


def test_a_file_is_run_once_however_often_it_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Thing:\n    size: int = 3\ndef read(row):\n    return Thing()\n"
    )
    thing = load_object(f"{file}:Thing", option="data.reader")
    assert isinstance(load_object(f"{file}:read", option="data.reader")(None), thing)


def test_a_changed_file_is_another_one(tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    file.write_text("SIZE = 1\n")
    before = plugin_digest(f"{file}:SIZE", option="--algo")
    assert load_object(f"{file}:SIZE", option="--algo") == 1
    file.write_text("SIZE = 2\n")
    assert load_object(f"{file}:SIZE", option="--algo") == 2
    assert plugin_digest(f"{file}:SIZE", option="--algo") != before
    assert [path.name for path in tmp_path.iterdir()] == ["my.py"]


@pytest.mark.parametrize("text", ["my.py", "my:read", ":read", "my.py:", "my.py:a b", ""])
def test_refuses_what_names_no_object(text: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        load_object(text, option="data.reader")
    assert str(refused.value) == f"data.reader = {text!r}: expected FILE.py:NAME"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("other = 1\n", "has nothing of the name 'read'"),
        ("import no_such_package\n", "cannot be run (ModuleNotFoundError: No module named 'no_such_package')"),
        ("def read(:\n", "cannot be run (SyntaxError: "),
        ("raise SystemExit(0)\n", "cannot be run (SystemExit: 0)"),
    ],
)
def test_refuses_a_file_that_does_not_give_it(tmp_path: Path, content: str | None, told: str) -> None:
    file = tmp_path / "my.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RefusedInput) as refused:
        load_object(f"{file}:read", option="data.reader")
    assert str(refused.value).startswith(f"data.reader = '{file}:read': {str(file)!r} {told}")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise SystemExit(0)", "cannot be run (SystemExit: 0)"),
        ("raise ValueError('x' * 100_000)", "cannot be run (ValueError: xxx"),
        ("class E(BaseException): pass\nraise E('mine')", "cannot be run (E: mine)"),
        (
            "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E",
            "which cannot be shown: ZeroDivisionError",
        ),
        ("def f(): f()\nf()", "cannot be run (RecursionError"),
        ("x = " + "(" * 1000, "cannot be run (SyntaxError"),
    ],
)
def test_a_file_that_ends_in_its_own_way_is_refused_in_one_line(tmp_path: Path, source: str, told: str) -> None:
    (tmp_path / "a.py").write_text(source)
    with pytest.raises(RefusedInput) as caught:
        load_object(f"{tmp_path / 'a.py'}:name", option="data.reader")
    assert told in str(caught.value) and len(str(caught.value)) < 2100


def test_what_a_file_prints_is_told_by_its_beginning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loud.py").write_text(
        "print('hello \\x1b[31m')\nfor _ in range(3000):\n    print('x' * 1000)\nname = 1\n"
    )
    assert load_object(f"{tmp_path / 'loud.py'}:name", option="data.reader") == 1
    out, err = capsys.readouterr()
    assert out == "" and len(err) < 600
    assert "loud.py printed 3003012 characters: hello \\x1b[31m xxx" in err


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.py")
    with pytest.raises(RefusedInput, match="is not a file but a pipe"):
        load_object(f"{tmp_path / 'a.py'}:name", option="data.reader")
