"""Nothing waits without a name and a deadline: the register of what the driver is waiting for right now."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.errors import GuardStop

_SLICE_S = 2.0
_LONGEST = 400
"""Characters; a sentence that is longer is cut in its middle, as both its ends tell something."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r'^\s+File ".*", line \d+')
_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"
_NO_NEWS = ("For further information visit", "The actor never ran")
_OF_A_CHECK = re.compile(r" \[type=\w+, input_value=.*$")
_DETAIL = "Worker exit detail:"


class WaitTimeout(RuntimeError):
    """A named wait passed its deadline."""


class _OfWorkers(Exception):
    """Something became of workers."""

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


class WorkerLost(_OfWorkers, RuntimeError):
    """A worker died, fell silent, or did not finish by its deadline; whoever owns its role may replace it."""


class WorkerCannotStart(WorkerLost):
    """What a worker's own start ended in. Started again on the same settings, it would end there again."""


class WorkerFailed(_OfWorkers, GuardStop):
    """A worker that lives on raised an error: asked again, or started again, it would raise it again."""


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


def last_words(text: str) -> str:
    """What an error of Ray's says went wrong: the message its traceback ends in, and what caused that.

        The actor died because of an error raised in its creation task, ray::RolloutWorker.__init__() ...
          File "workers/rollout/vllm_rollout.py", line 48, in __init__
            ...
        ValueError: Free memory on device cuda:0 (3.1/139.8 GiB) on startup is less than ...      ◄── this

    Args:
        text: The whole error, as Ray tells it.
    """
    plain = _COLOUR.sub("", text).strip()
    if any(_FRAME.match(line) for line in plain.splitlines()):
        said = _messages(plain)
    else:
        said = plain.partition(_DETAIL)[2] or plain
        said = _joined([line for line in said.splitlines() if not line.startswith("\t")])
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST // 2]} ... {said[-_LONGEST // 2 :]}"


def _messages(traceback: str) -> str:
    """The message of the last exception; in brackets that of the first of those that caused it."""
    # What was merely being handled when another went wrong is not its cause.
    causes = [_message(part) for part in traceback.rpartition(_CONTEXT)[2].split(_CAUSE)]
    last, first = causes[-1], causes[0]
    return last if first in last else f"{last} ({first})"


def _message(traceback: str) -> str:
    """All lines of what follows the innermost frame and its source."""
    lines = traceback.splitlines()
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    after = lines[frames[-1] + 1 :] if frames else lines
    while after and after[0][:1].isspace():
        after.pop(0)
    return _joined(after)


def _joined(lines: list[str]) -> str:
    words = [_OF_A_CHECK.sub("", line.strip()) for line in lines]
    return " ".join(line for line in words if line and not line.startswith(_NO_NEWS))
