"""What a metrics row may hold, and that it reaches every sink."""

import json
import math
import time
from pathlib import Path

import pytest

from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics import NONFINITE, PhaseClock, metrics_row
from orchestrator.run.tracking import JsonlSink, Tracker, open_tracker


@pytest.mark.parametrize("name", ["reward", "Reward/mean", "reward/Mean", "reward/", "/mean", "re ward/mean", "a/b\n"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="does not match"):
        metrics_row({name: 1.0})


def test_values_that_are_not_finite_become_null_and_are_counted() -> None:
    row = metrics_row({"policy/loss": math.nan, "kl/ref": -math.inf, "reward/mean": 1.5})
    assert row == {"policy/loss": None, "kl/ref": None, "reward/mean": 1.5, NONFINITE: 2.0}


def test_a_row_is_on_disk_as_plain_json_before_the_sink_is_closed(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    Tracker([sink]).log(3, {"policy/loss": math.nan, "reward/mean": 0.25})
    line = (tmp_path / "metrics.jsonl").read_text()
    sink.close()
    assert line.endswith("\n") and "NaN" not in line
    assert json.loads(line) == {"step": 3, "policy/loss": None, "reward/mean": 0.25, NONFINITE: 1.0}


def test_rows_are_added_to_those_of_the_run_before_a_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (1, 2):
        with open_tracker(folder, trackers=[]) as tracker:
            tracker.log(step, {"reward/mean": 0.0})
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == [1, 2]


def test_tensorboard_gets_the_finite_values(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_tracker(RunFolder(tmp_path), trackers=["tensorboard"]) as tracker:
        tracker.log(7, {"reward/mean": 0.5, "policy/loss": math.nan})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(7, 0.5)]
    assert "policy/loss" not in events.Tags()["scalars"]


def test_wandb_keeps_the_run_offline_and_goes_on_with_it_after_a_resume(tmp_path: Path) -> None:
    for step in (1, 2):
        with open_tracker(RunFolder(tmp_path), trackers=["wandb"]) as tracker:
            tracker.log(step, {"reward/mean": 0.5, "policy/loss": math.nan})
    # A process of wandb's own writes them, and on a busy machine ends after the tracker is closed.
    files = []
    for _ in range(600):
        files = sorted(tmp_path.glob("wandb/wandb/offline-run-*/run-*.wandb"))
        if len(files) == 2 and all(b"reward/mean" in file.read_bytes() for file in files):
            break
        time.sleep(0.1)
    assert len(files) == 2
    assert len({file.name for file in files}) == 1
    assert all(b"reward/mean" in file.read_bytes() for file in files)


def test_mlflow_gets_the_finite_values_of_a_run_and_of_its_resume_as_one(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    for step in (1, 2):
        with open_tracker(RunFolder(tmp_path), trackers=["mlflow"]) as tracker:
            tracker.log(step, {"reward/mean": step / 2, "policy/loss": math.nan})
    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("raylign")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "reward/mean")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 1.0)]
    assert "policy/loss" not in run.data.metrics


def test_the_clock_adds_up_a_phase_and_times_it_when_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    # Read by: the clock itself, then entry and exit of each phase, then the sum: 0, (1, 3), (4, 9), (10, 11), 12.
    times = iter([0.0, 1.0, 3.0, 4.0, 9.0, 10.0, 11.0, 12.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    clock = PhaseClock()
    with clock.phase("rollout"):
        pass
    with clock.phase("train"):
        pass
    with pytest.raises(ZeroDivisionError), clock.phase("rollout"):
        raise ZeroDivisionError
    metrics = clock.metrics()
    monkeypatch.undo()
    assert metrics == {"time/rollout_s": 3.0, "time/train_s": 5.0, "time/step_s": 12.0}
