"""The seam between the service and whoever judges, and the breaker before one that is down.

closed ──N failures in a row──► open ──reset_s──► half-open: one trial ──success──► closed
                                 ▲                                  └────failure──► open
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from remote_rm.schema import Verdict

ABANDONED = "nobody waits for it any more"
"""Message of a cancellation that says nothing about the judge."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the words it was read from."""

    verdict: Verdict
    raw: str


class JudgeError(Exception):
    """No answer could be had from the judge; the message says why."""


class JudgeUnavailable(JudgeError):
    """Unreachable, too slow or overloaded: another attempt may succeed."""

    def __init__(self, told: str, *, wait_s: float = 0.0) -> None:
        """``wait_s`` is how long it asked to be left alone."""
        super().__init__(told)
        self.wait_s = wait_s


class Judge(Protocol):
    """Says whether the end of a reasoning and an answer mean the same."""

    @property
    def id(self) -> str:
        """Names whose verdicts these are, in the cache and in ``/healthz``."""
        ...

    @property
    def rubric_version(self) -> str:
        """Changes whenever the same input may be judged differently."""
        ...

    async def judge(self, tail: str, answer: str) -> Judgement:
        """Judge one pair.

        Raises:
            JudgeError: no answer could be had. An answer that cannot be read is the verdict ``unknown`` instead.
        """
        ...

    async def probe(self) -> None:
        """Return when the judge can be asked now.

        Raises:
            JudgeError: it cannot.
        """
        ...

    async def close(self) -> None:
        """Drop connections."""
        ...


class BreakerOpen(JudgeError):
    """The judge failed too often just now; it is not asked."""


class CircuitBreaker:
    """Call ``admit`` before an attempt, then exactly one of ``succeeded``, ``failed`` and ``released``.

    For one event loop.
    """

    def __init__(
        self, *, max_failures: int = 5, reset_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``max_failures`` in a row open it; after ``reset_s`` seconds one trial is let through."""
        self._max_failures = max_failures
        self._reset_s = reset_s
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._on_trial = False

    def admit(self) -> None:
        """Return when an attempt may be made.

        Raises:
            BreakerOpen: not now.
        """
        if self._opened_at is None:
            return
        wait_s = self._opened_at + self._reset_s - self._clock()
        if wait_s > 0:
            raise BreakerOpen(f"the judge failed {self._failures} times in a row; next trial in {wait_s:.1f} s")
        if self._on_trial:
            raise BreakerOpen(f"the judge failed {self._failures} times in a row; a trial is under way")
        self._on_trial = True

    def succeeded(self) -> None:
        """The judge answered: close."""
        self._failures = 0
        self._opened_at = None
        self._on_trial = False

    def failed(self) -> None:
        """The judge did not answer: count, and open when it is once too often or the trial's result."""
        self._failures += 1
        # Calls admitted before it opened may still fail afterwards; they must not postpone the trial.
        if self._on_trial or (self._opened_at is None and self._failures >= self._max_failures):
            self._opened_at = self._clock()
            self._on_trial = False

    def released(self) -> None:
        """The attempt says nothing about the judge: whoever comes next may be the trial."""
        self._on_trial = False
