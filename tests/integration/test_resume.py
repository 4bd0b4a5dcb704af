"""SIGKILL the driver anywhere, run the same command again: nothing differs from the run that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from orchestrator.tasks.digits import DigitsPaths
from tests.integration.conftest import run_cli
from tests.integration.runs import STEPS, metric_rows, online_arguments, rollout_trace, training_trace

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

_MARK = "RAYLIGN_TEST_RUN"
_START_DEADLINE_S = 240.0
_GONE_DEADLINE_S = 20.0


def test_a_killed_run_continues_exactly(unbroken_run: Path, warm_model: Path, digits: DigitsPaths) -> None:
    moment = random.SystemRandom()
    rows_before, delay_s = moment.randint(1, STEPS - 2), moment.uniform(0.0, 1.5)
    # Printed, so that a failure can be repeated: the moment is different in every run of the suite.
    print(f"killed {delay_s:.2f} s after row {rows_before}")  # noqa: T201
    run_dir = unbroken_run.parent / "killed"
    arguments = online_arguments(warm_model, digits, run_dir)
    _run_and_kill(arguments, run_dir, rows_before=rows_before, delay_s=delay_s)

    result = run_cli(*arguments)

    assert result.returncode == 0, result.stderr[-3000:]
    trace = training_trace(run_dir)
    assert [row["step"] for row in trace] == list(range(STEPS + 1))
    assert trace == training_trace(unbroken_run)
    assert rollout_trace(run_dir) == rollout_trace(unbroken_run)

    another = run_cli(*arguments, "--optimizer.lr", "2e-3")
    assert another.returncode == 2
    assert "has optimizer.lr = 0.001, this run has 0.002;" in another.stderr
    assert training_trace(run_dir) == trace


def _run_and_kill(arguments: list[str], run_dir: Path, *, rows_before: int, delay_s: float) -> None:
    """Start a run, SIGKILL its driver alone, and see every process it ever started end by itself."""
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator.train", *arguments],
        env={**os.environ, _MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as driver:
        deadline = time.monotonic() + _START_DEADLINE_S
        while len(metric_rows(run_dir)) < rows_before:
            assert driver.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, f"no row {rows_before} after {_START_DEADLINE_S:g} s"
            time.sleep(0.02)
        time.sleep(delay_s)
        assert len(_marked(mark)) > 3, "Ray, the policy, the engine and the service should be running"
        driver.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + _GONE_DEADLINE_S
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"still running after the driver's death: {left}"


def _marked(mark: str) -> list[str]:
    """Command lines of the processes that inherited the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
        except OSError:
            continue  # ended while we looked
    return found
