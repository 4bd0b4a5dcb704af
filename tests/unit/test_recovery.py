"""Lost ranks are a resume, a bounded number of times."""

from pathlib import Path

import pytest

from orchestrator.cluster.waits import WorkerLost
from orchestrator.config import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import GuardStop
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
