"""Nothing waits without a name and a deadline: the register of what the driver is waiting for right now."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_SLICE_S = 2.0


class WaitTimeout(RuntimeError):
    """A named wait passed its deadline."""


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
            tail = f" ({self.note})" if self.note else ""
            raise WaitTimeout(f"waited {self.elapsed_s:.0f} s for {self.name}{tail}, limit {self.deadline_s:.0f} s")


_CURRENT: list[Wait] = []


def current_waits() -> list[Wait]:
    """What is being waited for, outermost first; read by the console's refresh thread."""
    return list(_CURRENT)


@contextmanager
def waiting(name: str, deadline_s: float) -> Iterator[Wait]:
    """Register a wait for the duration of the block."""
    wait = Wait(name, deadline_s)
    _CURRENT.append(wait)
    try:
        yield wait
    finally:
        _CURRENT.remove(wait)


def get(refs: Any, *, name: str, deadline_s: float) -> Any:
    """``ray.get`` under a name and a deadline.

    Raises:
        WaitTimeout: the deadline passed.
    """
    # Deferred: the console and its tests read the register without Ray.
    import ray
    import ray.exceptions

    with waiting(name, deadline_s) as wait:
        while True:
            try:
                return ray.get(refs, timeout=min(_SLICE_S, deadline_s))
            except ray.exceptions.GetTimeoutError:
                wait.check()
