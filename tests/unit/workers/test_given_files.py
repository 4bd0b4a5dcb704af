"""Files that people name: regular ones alone, bounded by size before they are read, and never waited for."""

import os
from pathlib import Path

import pytest

from workers.given_files import UnusableFile, read_bytes, read_json, read_text, read_toml


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = {"a folder": tmp_path, "a pipe": tmp_path / "pipe", "a device": Path("/dev/zero")}[kind]
    with pytest.raises(UnusableFile, match=f"^is not a file but {kind}$"):
        read_bytes(path, most=10)


def test_a_file_is_refused_by_its_size_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.png"
    file.touch()
    os.truncate(file, 9 * 2**30)  # holes, which take no room on the disk and all of it in memory
    with pytest.raises(UnusableFile, match="larger than the 100 bytes"):
        read_bytes(file, most=100)


def test_a_file_that_tells_no_size_is_read_no_further_than_the_bound() -> None:
    assert Path("/proc/self/maps").stat().st_size == 0
    with pytest.raises(UnusableFile, match="larger than the 100 bytes"):
        read_bytes("/proc/self/maps", most=100)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("a\0b", "holds a NUL character"),
        ("n" * 256, "has a name of 256 bytes"),
        ("ü" * 128, "has a name of 256 bytes"),
        ("d/" * 2100, "is a path of 4200 bytes"),
        ("gone", r"cannot be read \(No such file or directory\)"),
    ],
)
def test_a_path_that_no_file_can_have_is_told_as_such(path: str, told: str) -> None:
    with pytest.raises(UnusableFile, match=told):
        read_text(path, most=10)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = " + "[" * 100_000, "is not usable TOML: nested deeper"),
        ("x = " + "[" * 100 + "]" * 100, "is not usable TOML: nested deeper"),
        (".".join(["a"] * 1000) + " = 1", "is not usable TOML: nested deeper"),
        ("x = " + "9" * 5000, "is not valid TOML"),
        ("x = 0x" + "f" * 5000, "integer of 20000 bits"),
        ("x = \ud800", "is not UTF-8 text"),
        ("x =", "is not valid TOML"),
    ],
)
def test_a_toml_file_that_could_not_be_shown_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UnusableFile, match=told):
        read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "is not usable JSON: nested deeper"),
        ("[" * 1000 + "]" * 1000, "is not usable JSON: nested deeper"),
        ("9" * 5000, "is not valid JSON"),
        ('{"a": 1', r"is not valid JSON \(.* at line 1\)"),
    ],
)
def test_a_json_file_that_could_not_be_shown_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UnusableFile, match=told):
        read_json(tmp_path / "a.json")


def test_a_tokenizer_that_means_no_bound_by_a_large_number_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert read_json(tmp_path / "a.json")["model_max_length"] > 10**30
