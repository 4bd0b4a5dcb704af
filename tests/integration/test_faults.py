"""Workers of a running training are killed and stopped; the run ends as if nothing had happened."""

import random
from pathlib import Path

import pytest

from orchestrator.tasks.digits import DigitsPaths
from tests.integration.chaos import run_and_lose_a_node, run_with_accidents
from tests.integration.runs import STEPS, metric_rows, online_arguments, rollout_trace, training_trace

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(600)]


def test_a_run_survives_what_happens_to_its_workers(unbroken_run: Path, warm_model: Path, digits: DigitsPaths) -> None:
    moment = random.SystemRandom()
    accidents = [
        ("reward service killed", 1, moment.uniform(0.0, 0.5)),
        ("engine killed", 2, moment.uniform(0.0, 1.0)),
        ("policy rank killed", 4, moment.uniform(0.0, 1.0)),
        ("engine stopped", 5, moment.uniform(0.0, 1.0)),
    ]
    print(accidents)  # noqa: T201
    run_dir = unbroken_run.parent / "disturbed"
    arguments = [*online_arguments(warm_model, digits, run_dir), "--run.silent_after_s", "12"]

    result = run_with_accidents(arguments, run_dir, accidents)

    assert result.returncode == 0, result.stderr[-3000:]
    trace = training_trace(run_dir)
    assert [row["step"] for row in trace] == list(range(STEPS + 1))
    assert trace == training_trace(unbroken_run)
    assert rollout_trace(run_dir) == rollout_trace(unbroken_run)
    assert metric_rows(run_dir)[-1]["judge/coverage"] == 1.0


def test_a_run_survives_the_loss_of_a_node(unbroken_run: Path, warm_model: Path, digits: DigitsPaths) -> None:
    moment = random.SystemRandom()
    rows_before, delay_s = moment.randint(1, STEPS - 1), moment.uniform(0.0, 1.0)
    print(f"node lost {delay_s:.2f} s after row {rows_before}")  # noqa: T201
    run_dir = unbroken_run.parent / "node_lost"
    arguments = online_arguments(warm_model, digits, run_dir)

    result = run_and_lose_a_node(arguments, run_dir, rows_before=rows_before, delay_s=delay_s)

    assert result.returncode == 0, result.stderr[-3000:]
    assert training_trace(run_dir) == training_trace(unbroken_run)
    assert rollout_trace(run_dir) == rollout_trace(unbroken_run)
