"""How command lines end: flags that cannot be read are one line, and an interrupt is no traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator import evaluate, export, judge, report, train
from orchestrator.command_line import INTERRUPTED, ended
from orchestrator.data.__main__ import main as data

_EVALUATE = ("--benchmark", "pope", "--model", "m", "--data", "d")


@pytest.mark.parametrize(
    ("main", "argv", "told"),
    [
        (evaluate.main, (*_EVALUATE, "--votes", "x"), "Error parsing --votes"),
        (evaluate.main, (*_EVALUATE, "--votes", "9" * 5000), "Error parsing --votes"),
        (evaluate.main, (*_EVALUATE, "--order", "\x1b[31m" + "x" * 100_000), "invalid choice"),
        (evaluate.main, (), "--benchmark"),
        (evaluate.main, (*_EVALUATE, "--template", "n" * 256), "template = 'nnn"),
        (judge.main, ("--model", "m\0"), "holds a NUL character"),
        (judge.main, ("--model", "m", "--serve", "--port", "70000"), "port = 70000: expected from 0 to 65535"),
        (judge.main, ("--model", "m", "--serve", "--max_images", "9" * 30), "expected from 1 to 10000"),
        (data, ("check", "n" * 256), "path = 'nnn"),
        (data, ("check", "rows.json", "--max-pixels", "x"), "Error parsing --max-pixels"),
        (data, ("look", "rows.json"), "look"),
        (export.main, ("a",), "Folder to be made"),
        (export.main, ("d/" * 2100, "b"), "is a path of 4200 bytes"),
        (report.main, ("a\0",), "holds a NUL character"),
        (train.main, ("--algo", "sft", "--run.dir", "a\0"), "holds a NUL character"),
    ],
)
def test_flags_that_cannot_be_read_are_one_line(
    main, argv: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("refused: ") and told in line and len(line) <= 300 and out == ""
    assert line.isprintable()


def test_an_interrupt_is_one_line_and_exit_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        raise KeyboardInterrupt

    assert ended(run) == INTERRUPTED == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stopped: interrupted")


def test_an_interrupt_of_the_real_command_is_one_line_and_leaves_nothing_running(tmp_path: Path) -> None:
    reader = tmp_path / "waits.py"
    reader.write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    command = [
        sys.executable,
        "-m",
        "orchestrator.train",
        "--algo",
        "sft",
        "--data.path",
        str(rows),
        "--model.path",
        "m",
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [*command, "--data.reader", f"{reader}:read"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment
    )
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, len(said.splitlines())) == (INTERRUPTED, 1), said
