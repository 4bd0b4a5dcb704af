"""Every wait has a name and a deadline, and ends with that name. Ray's own ``get`` is replaced: no cluster here."""

import itertools
from collections.abc import Iterable, Mapping

import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from orchestrator.cluster import waits
from orchestrator.cluster.waits import (
    Wait,
    WaitTimeout,
    WorkerCannotStart,
    WorkerFailed,
    WorkerLost,
    current_waits,
    get,
    start_of,
    waiting,
    watched_by,
)
from orchestrator.errors import GuardStop
from workers.multimodal.media import MediaError


def _clock(monkeypatch: pytest.MonkeyPatch, *, step_s: float) -> None:
    """A clock that moves on by ``step_s`` each time it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(waits.time, "monotonic", lambda: next(ticks) * step_s)


def test_waits_are_listed_outermost_first_while_they_last() -> None:
    with waiting("rollout: completions", 10.0), waiting("rollout: engine 0", 5.0):
        assert [(wait.name, wait.deadline_s) for wait in current_waits()] == [
            ("rollout: completions", 10.0),
            ("rollout: engine 0", 5.0),
        ]
    assert current_waits() == []


def test_a_wait_ends_when_its_block_raises() -> None:
    with pytest.raises(ZeroDivisionError), waiting("sync", 1.0):
        raise ZeroDivisionError
    assert current_waits() == []


def test_the_deadline_is_raised_with_name_progress_and_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    _clock(monkeypatch, step_s=60.0)
    with waiting("rollout: completions", 100.0) as wait:
        wait.check()
        wait.progress("3 of 8")
        with pytest.raises(WaitTimeout, match=r"for rollout: completions \(3 of 8\), limit 100 s"):
            for _ in range(3):
                wait.check()


def test_progress_starts_the_deadline_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _clock(monkeypatch, step_s=60.0)
    with waiting("rollout", 100.0) as wait:
        for done in range(5):
            wait.check()
            wait.progress(f"{done} of 5")


def test_get_asks_in_slices_and_shows_its_wait_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def slow_get(refs: object, *, timeout: float) -> str:
        shown.append(([wait.name for wait in current_waits()], timeout))
        if len(shown) < 3:
            raise GetTimeoutError
        return f"value of {refs}"

    monkeypatch.setattr(ray, "get", slow_get)
    assert get("ref", name="policy: update", deadline_s=30.0) == "value of ref"
    assert [names for names, _ in shown] == [["policy: update"]] * 3
    assert all(timeout <= 5.0 for _, timeout in shown)
    assert current_waits() == []


def test_get_stops_with_the_name_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(refs: object, *, timeout: float) -> None:
        raise GetTimeoutError

    monkeypatch.setattr(ray, "get", never)
    _clock(monkeypatch, step_s=2.0)
    with pytest.raises(WaitTimeout, match="for sync: engine 1, limit 7 s"):
        get("ref", name="sync: engine 1", deadline_s=7.0)
    assert current_waits() == []


class _Watch:
    """Takes the named workers for silent, and notes which waits were given up."""

    def __init__(self, **silent: float) -> None:
        self._silent = {name.replace("_", "-"): age for name, age in silent.items()}
        self.stalls: list[str] = []

    def silent(self, workers: Iterable[str]) -> Mapping[str, float]:
        return {worker: self._silent[worker] for worker in workers if worker in self._silent}

    def stalled(self, wait: Wait) -> None:
        self.stalls.append(wait.name)


def _never(refs: object, *, timeout: float) -> None:
    raise GetTimeoutError


def test_a_worker_that_has_fallen_silent_ends_the_wait_for_it_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", _never)
    with watched_by(_Watch(policy_1=70.0)):
        with pytest.raises(WorkerLost, match="policy-1: policy: update: no heartbeat for 70 s") as lost:
            get("ref", name="policy: update", deadline_s=600.0, workers=["policy-0", "policy-1"])
        assert (lost.value.role, lost.value.workers) == ("policy", ("policy-1",))
        _clock(monkeypatch, step_s=60.0)
        with pytest.raises(WorkerLost, match="rollout-0: waited"):
            get("ref", name="rollout", deadline_s=100.0, workers=["rollout-0"])


def test_past_the_deadline_the_watch_hears_of_it_before_the_wait_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", _never)
    _clock(monkeypatch, step_s=60.0)
    watch = _Watch()
    with watched_by(watch), pytest.raises(WaitTimeout, match="for the placement group, limit 100 s"):
        get("ref", name="the placement group", deadline_s=100.0)
    assert watch.stalls == ["the placement group"]


def test_a_worker_that_died_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def died(refs: object, *, timeout: float) -> None:
        raise ActorDiedError

    monkeypatch.setattr(ray, "get", died)
    with pytest.raises(WorkerLost) as lost:
        get("ref", name="sync", deadline_s=10.0, workers=["rollout-3"])
    assert lost.value.workers == ("rollout-3",)


def test_a_worker_that_was_never_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_made(refs: object, *, timeout: float) -> None:
        raise ActorDiedError(_failed("__init__", ValueError("no room for the cache")))

    monkeypatch.setattr(ray, "get", never_made)
    with pytest.raises(WorkerCannotStart, match=r"^rollout-0: ValueError: no room for the cache$") as lost:
        get("ref", name="sync: engine 0: load", deadline_s=10.0, workers=["rollout-0"])
    assert 'File "worker.py"' in lost.value.told, "the log gets the whole"


@pytest.mark.parametrize("error", [OutOfMemoryError("killed: the node runs low on memory"), WorkerCrashedError()])
def test_whatever_ends_a_worker_is_a_loss(error: RayError, monkeypatch: pytest.MonkeyPatch) -> None:
    def died(refs: object, *, timeout: float) -> None:
        raise error

    monkeypatch.setattr(ray, "get", died)
    with pytest.raises(WorkerLost, match=r"rollout-0: sync: .*(low on memory|died unexpectedly)") as lost:
        get("ref", name="sync", deadline_s=10.0, workers=["rollout-0"])
    assert not isinstance(lost.value, WorkerCannotStart)


def test_what_a_worker_raises_while_it_is_set_up_keeps_it_from_starting() -> None:
    with (
        pytest.raises(WorkerCannotStart, match=r"^policy-0: OSError: no file model\.safetensors$"),
        start_of(["policy-0"]),
    ):
        raise WorkerFailed(["policy-0"], "OSError: no file model.safetensors")


def _failed(where: str, cause: Exception) -> RayTaskError:
    told = f'ray::{where}()\n  File "worker.py", line 1, in {where}\n    raise\n{type(cause).__name__}: {cause}'
    return RayTaskError(where, told, cause)


def test_an_image_that_has_changed_ends_the_run_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(refs: object, *, timeout: float) -> None:
        raise RayTaskError("loss", "a traceback", MediaError("cat.png", "has changed since the data was read"))

    monkeypatch.setattr(ray, "get", failed)
    told = r"^policy-0: policy: loss: 'cat\.png' has changed since the data was read$"
    with pytest.raises(WorkerFailed, match=told):
        get("ref", name="policy: loss", deadline_s=10.0, workers=["policy-0"])


def test_an_error_in_a_worker_that_lives_on_stops_the_run_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(refs: object, *, timeout: float) -> None:
        raise _failed("loss", RuntimeError("CUDA out of memory"))

    monkeypatch.setattr(ray, "get", failed)
    told = r"^policy-0, policy-1: policy: loss: RuntimeError: CUDA out of memory$"
    with pytest.raises(WorkerFailed, match=told) as stop:
        get("ref", name="policy: loss", deadline_s=10.0, workers=["policy-0", "policy-1"])
    assert (stop.value.role, stop.value.reason) == ("policy", "policy: loss: RuntimeError: CUDA out of memory")
    assert isinstance(stop.value, GuardStop) and 'File "worker.py"' in stop.value.told
    with pytest.raises(RayTaskError):
        get("ref", name="a placement group", deadline_s=10.0)
