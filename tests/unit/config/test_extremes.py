"""Settings of a size or a kind that nobody means: refused by name, in one short line, and never waited for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cluster.resources import load_cluster_file
from orchestrator.config.layers import read_toml
from orchestrator.config.load import load_config
from orchestrator.config.options import options
from orchestrator.errors import RefusedInput


def _refusal(*argv: str) -> str:
    with pytest.raises(RefusedInput) as caught:
        load_config(argv)
    return str(caught.value)


def _refused(*argv: str) -> bool:
    try:
        load_config(argv)
    except RefusedInput:
        return True
    return False


@pytest.mark.parametrize("digits", [5000, 100_000])
@pytest.mark.parametrize("name", [name for name, kind in options().items() if "int" in str(kind)])
def test_an_integer_that_python_does_not_read_is_refused_by_name(name: str, digits: int) -> None:
    told = _refusal("--algo", "sft", f"--{name}", "9" * digits)
    assert told.startswith((f"{name} = '999", f"{name}.")) and len(told) <= 300


def test_every_count_has_a_largest_value() -> None:
    unbounded = [
        name
        for name, kind in options().items()
        if "int" in str(kind) and not _refused("--algo", "sft", f"--{name}", f"{10**30}")
    ]
    assert unbounded == []


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (os.mkfifo, "is not a file but a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a file but a device"),
        (lambda path: path.write_text("x = " + "[" * 100_000), "is not usable TOML: nested deeper than 64 levels"),
        (
            lambda path: path.write_text("x = 0x" + "f" * 20_000),
            "holds an integer of 80000 bits",
        ),
    ],
)
@pytest.mark.parametrize("option", ["--config", "--placement.cluster"])
def test_what_is_no_file_of_settings_is_refused(
    tmp_path: Path, make: Callable[[Path], object], told: str, option: str
) -> None:
    make(tmp_path / "a.toml")
    read = load_cluster_file if option == "--placement.cluster" else read_toml
    with pytest.raises(RefusedInput, match=told):
        read(str(tmp_path / "a.toml"))


@pytest.mark.parametrize("name", ["x" * 100_000, "\x1b[31m", "run." * 20_000])
def test_an_unknown_flag_of_any_length_is_one_short_line(name: str) -> None:
    told = _refusal("--algo", "sft", f"--{name}", "1")
    assert told.startswith("unknown flag --") and len(told) <= 300 and told.isprintable()
