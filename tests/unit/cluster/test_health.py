"""Who is lost: a worker that has fallen silent, and one that was started and never heard of. No cluster here."""

import pytest

from orchestrator.cluster import health as health_module
from orchestrator.cluster.health import Health, HealthBoard
from workers.actor_base import Beat


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> HealthBoard:
    board = HealthBoard()
    monkeypatch.setattr(Health, "_read", lambda self: board.read())
    return board


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(health_module.time, "monotonic", lambda: now[0])
    return now


def _health() -> Health:
    health = Health.__new__(Health)
    health._silent_after_s, health._start_within_s = 10.0, 60.0
    return health


def _beat(worker: str) -> Beat:
    return Beat(worker=worker, pid=1, rss_gib=1.5, stacks="")


def test_a_worker_is_lost_once_it_has_been_silent_too_long(board: HealthBoard, clock: list[float]) -> None:
    board.beat(_beat("policy-0"))
    clock[0] += 10.0
    assert _health().silent(["policy-0", "rollout-0"]) == {}
    clock[0] += 1.0
    assert _health().silent(["policy-0", "rollout-0"]) == {"policy-0": 11.0}


def test_a_worker_that_is_stopped_while_it_starts_is_lost_too(board: HealthBoard, clock: list[float]) -> None:
    board.beat(_beat("rollout-0"))
    board.expect("rollout-0")  # its successor: what the old process said is void
    clock[0] += 59.0
    assert _health().silent(["rollout-0"]) == {}
    clock[0] += 2.0
    assert _health().silent(["rollout-0"]) == {"rollout-0": 61.0}
    board.beat(_beat("rollout-0"))
    assert _health().silent(["rollout-0"]) == {}


def test_memory_is_that_of_workers_that_have_told_theirs(board: HealthBoard, clock: list[float]) -> None:
    board.expect("rollout-0")
    board.beat(_beat("policy-0"))
    assert {role: gib for role, gib in _health().rss_gib().items() if role != "driver"} == {"policy": 1.5}
