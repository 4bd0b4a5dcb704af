"""Nothing waits without a name and a deadline: the register of what the driver is waiting for right now."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.cluster.last_words import last_words
from orchestrator.errors import GuardStop

_SLICE_S = 2.0


class WaitTimeout(RuntimeError):
    """A named wait passed its deadline."""


class WorkerLost(RuntimeError):
    """A worker died, fell silent, or did not finish by its deadline; whoever owns its role may replace it."""

    def __init__(self, workers: Sequence[str], reason: str, *, told: str = "") -> None:
        """
        Args:
            told: The whole of what is known, for the log; the reason is a sentence of it.
        """
        super().__init__(f"{', '.join(workers)}: {reason}")
        self.workers, self.reason, self.told = tuple(workers), reason, told

    @property
    def role(self) -> str:
        """The role of the workers, who are always of one."""
        return self.workers[0].rsplit("-", 1)[0]


class WorkerCannotStart(WorkerLost):
    """What a worker's own start ended in. Started again on the same settings, it would end there again."""


class WorkerFailed(GuardStop):
    """A worker that lives on raised an error: asked again, or started again, it would raise it again."""

    def __init__(self, workers: Sequence[str], reason: str, *, told: str = "") -> None:
        """
        Args:
            told: see ``WorkerLost``.
        """
        super().__init__(f"{', '.join(workers)}: {reason}")
        self.workers, self.reason, self.told = tuple(workers), reason, told

    @property
    def role(self) -> str:
        """The role of the workers, who are always of one."""
        return self.workers[0].rsplit("-", 1)[0]


class Watch(Protocol):
    """Knows which workers are alive."""

    def silent(self, workers: Iterable[str]) -> Mapping[str, float]:
        """Those that should have been heard of, with the seconds since they were."""
        ...

    def stalled(self, wait: "Wait") -> None:
        """A wait is past its deadline and is about to be given up: keep what tells why."""
        ...


@dataclass(slots=True, eq=False)
class Wait:
    """One thing the driver waits for."""

    name: str
    deadline_s: float
    """Longest time without progress, seconds."""
    since: float = field(default_factory=time.monotonic)
    note: str = ""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the wait began or last made progress."""
        return time.monotonic() - self.since

    def progress(self, note: str) -> None:
        """Something arrived: the deadline starts again."""
        self.since = time.monotonic()
        self.note = note

    def check(self) -> None:
        """Raise once the deadline has passed.

        Raises:
            WaitTimeout: naming the wait and its bound.
        """
        if self.elapsed_s > self.deadline_s:
            for watch in _WATCHES:
                watch.stalled(self)
            tail = f" ({self.note})" if self.note else ""
            raise WaitTimeout(f"waited {self.elapsed_s:.0f} s for {self.name}{tail}, limit {self.deadline_s:.0f} s")


_CURRENT: list[Wait] = []
_WATCHES: list[Watch] = []


def current_waits() -> list[Wait]:
    """What is being waited for, outermost first; read by the console's refresh thread."""
    return list(_CURRENT)


@contextmanager
def watched_by(watch: Watch) -> Iterator[None]:
    """Let ``watch`` look after every wait during the block."""
    _WATCHES.append(watch)
    try:
        yield
    finally:
        _WATCHES.remove(watch)


@contextmanager
def waiting(name: str, deadline_s: float) -> Iterator[Wait]:
    """Register a wait for the duration of the block."""
    wait = Wait(name, deadline_s)
    _CURRENT.append(wait)
    try:
        yield wait
    finally:
        _CURRENT.remove(wait)


def silent_workers(workers: Sequence[str]) -> dict[str, str]:
    """Those of ``workers`` that have fallen silent, with a reason each."""
    silent = {worker: age for watch in _WATCHES for worker, age in watch.silent(workers).items()}
    return {worker: f"no heartbeat for {age:.0f} s" for worker, age in silent.items()}


def get(refs: Any, *, name: str, deadline_s: float, workers: Sequence[str] = ()) -> Any:
    """``ray.get`` under a name and a deadline.

    Args:
        workers: Those of one role who compute the result; if one is lost, the error says which.
    Raises:
        WorkerCannotStart: one of ``workers`` raised an error while it was made.
        WorkerLost: one of ``workers`` died or fell silent, or the deadline passed.
        WorkerFailed: one of ``workers`` raised an error, e.g. as an image has changed since the data was read.
        WaitTimeout: the deadline passed, and no worker was named.
    """
    # Deferred: the console and its tests read the register without Ray.
    import ray
    import ray.exceptions

    from workers.multimodal.media import MediaError

    with waiting(name, deadline_s) as wait:
        while True:
            try:
                return ray.get(refs, timeout=min(_SLICE_S, deadline_s))
            except ray.exceptions.GetTimeoutError:
                _check(wait, workers)
            except ray.exceptions.RayError as error:
                if not workers:
                    raise
                reason = last_words(str(error))
                if isinstance(error, ray.exceptions.RayTaskError):
                    # What one looks like belongs to a person's data, and needs no name of ours.
                    said = str(error.cause) if isinstance(error.cause, MediaError) else reason
                    raise WorkerFailed(workers, f"{name}: {said}", told=str(error)) from error
                if isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed:
                    raise WorkerCannotStart(workers, reason, told=str(error)) from error
                raise WorkerLost(workers, f"{name}: {reason}", told=str(error)) from error


@contextmanager
def start_of(workers: Sequence[str]) -> Iterator[None]:
    """Whatever ``workers`` raise during the block keeps them from starting.

    Raises:
        WorkerCannotStart: in their own words.
    """
    try:
        yield
    except WorkerFailed as error:
        raise WorkerCannotStart(workers, error.reason, told=error.told) from error


def _check(wait: Wait, workers: Sequence[str]) -> None:
    silent = silent_workers(workers)
    if silent:
        worker, reason = next(iter(silent.items()))
        raise WorkerLost([worker], f"{wait.name}: {reason}")
    try:
        wait.check()
    except WaitTimeout as error:
        if not workers:
            raise
        raise WorkerLost(workers, str(error)) from error
