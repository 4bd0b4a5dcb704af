"""A circuit breaker: after several failures in a row nobody waits for a judge that is down.

closed ──N failures in a row──► open ──reset_s──► half-open: one trial ──success──► closed
                                 ▲                                  └────failure──► open
"""

import time
from collections.abc import Callable

from remote_rm.judges.protocol import JudgeError


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
