"""The judge of a running training goes away: for a while, and for good."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.tasks.digits import DigitsPaths
from tests.contract.fake_judge import Body, Say, fake_judge
from tests.contract.service import serving
from tests.integration.runs import metric_rows, online_arguments

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(600)]

_DOWN = Body(b"no", 503)
_OUTAGE_S = 30.0


def test_an_outage_is_waited_out_and_an_end_stops_the_run_with_a_checkpoint(
    warm_model: Path, digits: DigitsPaths, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    # A service without a cache: answers that repeat would otherwise never ask the judge again.
    with (
        fake_judge(Say("1")) as judge,
        serving("--judge", "openai", "--judge-url", judge.url, "--judge-model", "judge") as (url, _),
    ):
        arguments = [
            *online_arguments(warm_model, digits, run_dir),
            *("--reward.url", url, "--reward.max_outage_s", "45", "--rollout.engine", "transformers"),
        ]
        command = [sys.executable, "-m", "orchestrator.train", *arguments]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
            try:
                _wait_for_rows(driver, run_dir, 2)
                judge.behave(_DOWN)
                time.sleep(_OUTAGE_S)
                judge.behave(Say("1"))
                _wait_for_rows(driver, run_dir, 4)
                judge.behave(_DOWN)
                _, told = driver.communicate(timeout=120)
            finally:
                driver.kill()  # or leaving the block waits for a run that has been given up
    assert driver.returncode == 3, told[-3000:]
    assert told.splitlines()[-1].startswith("stopped: reward coverage")
    rows = metric_rows(run_dir)
    assert [row["judge/coverage"] for row in rows[1:]] == [1.0] * (len(rows) - 1)
    last = rows[-1]["step"]
    assert (run_dir / "checkpoints" / f"step_{last:06d}" / "manifest.json").is_file()


def _wait_for_rows(driver: "subprocess.Popen[str]", run_dir: Path, count: int) -> None:
    deadline = time.monotonic() + 200.0
    while len(metric_rows(run_dir)) < count:
        assert driver.poll() is None, "the run ended early"
        assert time.monotonic() < deadline, f"no row {count}"
        time.sleep(0.02)
