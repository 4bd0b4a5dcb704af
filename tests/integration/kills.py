"""SIGKILL of a run's driver at a moment of its choosing, and proof that nothing of the run outlives it."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from tests.integration.runs import metric_rows

_MARK = "RAYLIGN_TEST_RUN"
_START_DEADLINE_S = 600.0
_GONE_DEADLINE_S = 60.0


def run_and_kill(arguments: list[str], run_dir: Path, *, rows_before: int, delay_s: float) -> None:
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
