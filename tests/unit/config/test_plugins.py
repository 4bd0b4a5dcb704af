"""Objects from files outside the repository."""

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
