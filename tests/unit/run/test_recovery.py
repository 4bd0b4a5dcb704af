"""Lost ranks are a resume, a bounded number of times."""

import json
from pathlib import Path

import pytest

from orchestrator.cluster.waits import WorkerCannotStart, WorkerFailed, WorkerLost
from orchestrator.config import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.run.folder import RunFolder
from orchestrator.run.recovery import with_restarts

_LOST = WorkerLost(["policy-1"], "no heartbeat for 70 s")


def _config(max_restarts: int) -> TrainConfig:
    arguments = ["--algo", "sft", "--run.resume", "never", "--run.max_restarts", str(max_restarts)]
    return load_config(arguments)[0]


def test_a_restart_resumes_even_where_the_run_was_told_to_start_afresh(tmp_path: Path) -> None:
    seen: list[str] = []

    def run(config: TrainConfig) -> str:
        seen.append(config.run.resume)
        if len(seen) < 3:
            raise _LOST
        return "done"

    assert with_restarts(run, _config(2), RunFolder(tmp_path)) == "done"
    assert seen == ["never", "auto", "auto"]
    log = (tmp_path / "log.jsonl").read_text()
    assert "restart 1 from the last checkpoint: lost policy-1: no heartbeat for 70 s" in log


def test_one_loss_too_many_stops_the_run_with_its_name_and_bound(tmp_path: Path) -> None:
    def run(config: TrainConfig) -> None:
        raise _LOST

    with pytest.raises(GuardStop, match=r"lost policy-1: no heartbeat for 70 s, after run\.max_restarts = 1 restarts"):
        with_restarts(run, _config(1), RunFolder(tmp_path))


def test_a_worker_that_cannot_start_is_not_started_again(tmp_path: Path) -> None:
    tried = []

    def run(config: TrainConfig) -> None:
        tried.append(config)
        raise WorkerCannotStart(["rollout-0"], "ValueError: no room", told="line 1\nline 2\nValueError: no room")

    with pytest.raises(GuardStop, match=r"^cannot start rollout-0: ValueError: no room$"):
        with_restarts(run, _config(3), RunFolder(tmp_path))
    assert len(tried) == 1
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["message"] == "rollout-0: line 1\nline 2\nValueError: no room"


def test_what_is_refused_after_a_restart_stops_a_run_that_has_begun(tmp_path: Path) -> None:
    tried = []

    def run(config: TrainConfig) -> None:
        tried.append(config)
        if len(tried) == 2:
            raise RefusedInput("run.resume: the model has changed")
        raise _LOST

    with pytest.raises(GuardStop, match=r"^after a restart: run\.resume: the model has changed$"):
        with_restarts(run, _config(3), RunFolder(tmp_path))

    def refused(config: TrainConfig) -> None:
        raise RefusedInput("run.resume: another model")

    with pytest.raises(RefusedInput):
        with_restarts(refused, _config(3), RunFolder(tmp_path))


def test_a_worker_that_failed_is_not_started_again_and_the_log_has_all_it_said(tmp_path: Path) -> None:
    tried = []

    def run(config: TrainConfig) -> None:
        tried.append(config)
        raise WorkerFailed(["critique_reward-0"], "ValueError: no", told="line 1\nValueError: no")

    with pytest.raises(GuardStop, match=r"^critique_reward-0: ValueError: no$"):
        with_restarts(run, _config(3), RunFolder(tmp_path))
    assert len(tried) == 1
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["message"] == "critique_reward-0: line 1\nValueError: no"


def test_a_successor_that_cannot_start_is_tried_as_often_as_any(tmp_path: Path) -> None:
    ends = iter([_LOST, WorkerCannotStart(["policy-1"], "out of memory"), None])

    def run(config: TrainConfig) -> str:
        end = next(ends)
        if end is not None:
            raise end
        return "done"

    assert with_restarts(run, _config(2), RunFolder(tmp_path)) == "done"
