"""How long an endpoint has not answered, shared by all who ask it.

well ──so many failures in a row──► down: one trial at a time ──an answer──► well
                                       └── most_s without an answer ──► over: nobody is asked any more
"""

import time
from collections.abc import Callable

_MOST_FAILURES = 5


class Outage:
    """For one event loop."""

    def __init__(self, most_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            most_s: Longest time without an answer that is waited through, seconds.
        """
        self._most_s, self._clock = most_s, clock
        self._since: float | None = None
        self._failures = 0
        self.num_answers = 0
        self.reason = ""
        """Of the last failure."""

    def answered(self) -> None:
        """The endpoint is there."""
        self._since, self._failures = None, 0
        self.num_answers += 1

    def failed(self, reason: str) -> None:
        """It did not answer once."""
        self._since = self._clock() if self._since is None else self._since
        self._failures, self.reason = self._failures + 1, reason

    @property
    def is_down(self) -> bool:
        """Whether one trial at a time is enough."""
        return self._failures >= _MOST_FAILURES

    @property
    def is_over(self) -> bool:
        """Whether it has been waited for long enough."""
        return self._since is not None and self._clock() - self._since >= self._most_s
