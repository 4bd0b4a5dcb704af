"""``ray job submit``, as deploy/README.md has it, against a real head on this machine."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.runs import MAX_NEW_TOKENS, metric_rows

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(400)]

_ROOT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_ENV = {**os.environ, "PATH": f"{_BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """Address of a head of four logical processors, for jobs."""
    port, dashboard_port = _free_port(), _free_port()
    command = [
        *(str(_BIN / "ray"), "start", "--head", "--block", "--num-cpus=4", "--disable-usage-stats"),
        *(f"--port={port}", f"--dashboard-port={dashboard_port}", f"--object-store-memory={512 << 20}"),
    ]
    with (
        (tmp_path / "head.log").open("w") as log,
        subprocess.Popen(command, env=_ENV, stdout=log, stderr=log, start_new_session=True) as head,
    ):
        try:
            address = f"http://127.0.0.1:{dashboard_port}"
            _wait_until_it_answers(f"{address}/api/version", head)
            yield address
        finally:
            # ``ray stop`` would end every Ray on this machine, and asking the head takes half a minute.
            family = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
            for process in family:
                process.kill()
            psutil.wait_procs(family, timeout=10)


def _wait_until_it_answers(url: str, head: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and head.poll() is None:
        try:
            if httpx.get(url, timeout=2.0).status_code < 500:
                return  # 401 is an answer: the command line will bring the token
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"the head does not answer at {url}")


def _submit(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Submit and wait; again where the head answers already, but nobody is there yet to take the job."""
    deadline = time.monotonic() + 60.0
    while True:
        result = subprocess.run(
            command, cwd=_ROOT, env=_ENV, capture_output=True, text=True, timeout=300, check=False
        )  # fmt: skip
        if "No available agent" not in result.stdout + result.stderr or time.monotonic() > deadline:
            return result
        time.sleep(2.0)


def test_a_submitted_job_runs_to_its_end_and_its_metrics_come_back(
    dashboard: str, tmp_path: Path, warm_model: Path
) -> None:
    (line,) = re.findall(r"^ray job submit .*$", (_ROOT / "deploy" / "README.md").read_text(), re.MULTILINE)
    words = shlex.split(line.replace("http://HEAD:8265", dashboard))
    run_dir = tmp_path / "run"
    overrides = [
        "--run.dir",
        str(run_dir),
        "--model.path",
        str(warm_model),
        "--rollout.max_new_tokens",
        str(MAX_NEW_TOKENS),
    ]

    result = _submit([str(_BIN / words[0]), *words[1:], *overrides])

    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    assert "succeeded" in result.stdout
    assert "Held-out accuracy" in result.stdout
    assert [row["step"] for row in metric_rows(run_dir)] == [0, 1, 2]
