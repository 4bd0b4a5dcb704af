"""SIGKILL the driver anywhere, run the same command again: nothing differs from the run that was left alone."""

import random
from pathlib import Path

import pytest

from orchestrator.tasks.digits import DigitsPaths
from orchestrator.train import main
from tests.integration.conftest import run_cli
from tests.integration.kills import run_and_kill
from tests.integration.runs import (
    STEPS,
    benchmark_arguments,
    benchmark_trace,
    online_arguments,
    rollout_trace,
    training_trace,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_a_killed_run_continues_exactly(
    unbroken_run: Path, warm_model: Path, digits: DigitsPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    moment = random.SystemRandom()
    rows_before, delay_s = moment.randint(1, STEPS - 2), moment.uniform(0.0, 1.5)
    # Printed, so that a failure can be repeated: the moment is different in every run of the suite.
    print(f"killed {delay_s:.2f} s after row {rows_before}")  # noqa: T201
    run_dir = unbroken_run.parent / "killed"
    arguments = [*online_arguments(warm_model, digits, run_dir), *benchmark_arguments(digits)]
    run_and_kill(arguments, run_dir, rows_before=rows_before, delay_s=delay_s)

    result = run_cli(*arguments)

    assert result.returncode == 0, result.stderr[-3000:]
    trace = training_trace(run_dir)
    assert [row["step"] for row in trace] == list(range(STEPS + 1))
    assert trace == training_trace(unbroken_run)
    assert rollout_trace(run_dir) == rollout_trace(unbroken_run)
    assert benchmark_trace(run_dir) == benchmark_trace(unbroken_run)

    assert main([*arguments, "--optimizer.lr", "2e-3"]) == 2
    assert "has optimizer.lr = 0.0002, this run has 0.002;" in capsys.readouterr().err
    assert training_trace(run_dir) == trace
