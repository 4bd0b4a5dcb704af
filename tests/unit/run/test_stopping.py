"""What is saved when a run stops, and what is said where nothing can be saved."""

import logging

import pytest

from orchestrator.cluster.waits import WaitTimeout, WorkerFailed, WorkerLost
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.run.recovery import leaving_checkpoint


@pytest.mark.parametrize(
    ("stop", "saves"),
    [
        (GuardStop("a guard"), True),
        (RefusedInput("a row"), True),
        (WorkerFailed(["rollout-0"], "an error"), True),
        (WorkerFailed(["policy-0"], "an error"), True),
        (WorkerFailed(["policy-0", "policy-1"], "an error"), False),
        (WorkerFailed(["critic-0", "critic-1"], "an error"), False),
        (WorkerFailed(["rollout-0", "rollout-1"], "an error"), True),
    ],
)
def test_a_stop_leaves_what_its_ranks_can_still_save(stop: Exception, saves: bool) -> None:
    saved: list[bool] = []
    with pytest.raises(GuardStop) as told, leaving_checkpoint(lambda: saved.append(True)):
        raise stop
    assert str(told.value) == str(stop)
    assert saved == [True] * saves


@pytest.mark.parametrize(
    "fault", [WorkerLost(["policy-0"], "has died"), WaitTimeout("waited"), WorkerFailed(["policy-0"], "disk full")]
)
def test_why_a_run_stops_is_told_although_it_cannot_be_saved(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def save() -> None:
        raise fault

    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(GuardStop, match="the reason"),
        leaving_checkpoint(save),
    ):
        raise GuardStop("the reason")
    assert f"no checkpoint could be saved: {fault}" in caplog.text


def test_a_lost_worker_is_not_a_stop() -> None:
    saved: list[bool] = []
    with pytest.raises(WorkerLost), leaving_checkpoint(lambda: saved.append(True)):
        raise WorkerLost(["policy-0"], "has died")
    assert not saved


def test_a_stop_is_one_line_whatever_it_is_made_of() -> None:
    assert str(GuardStop("first\nsecond\r\nthird")) == "first second third"
