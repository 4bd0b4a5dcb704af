"""What a metrics row is: flat names, finite numbers or null, and the clock that times the phases of a step."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_NAME = re.compile(r"[a-z]+(/[a-z0-9_]+)+")

NONFINITE = "guard/nonfinite_metrics"
"""How many values of the row were NaN or infinite and are null in it."""

MEMORY_PREFIX = "memory/rss_gib/"
"""Followed by a role."""


def metrics_row(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Check the names of one step's figures and make the row that every sink gets.

    Returns:
        The figures in their order, null where one is not finite, and the number of nulls under ``NONFINITE``.
    Raises:
        ValueError: a name that is not lower-case words joined by slashes, e.g. ``reward/mean``.
    """
    wrong = [name for name in metrics if not _NAME.fullmatch(name)]
    if wrong:
        raise ValueError(f"metric name {wrong[0]!r} does not match {_NAME.pattern}")
    row = {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
    return {**row, NONFINITE: float(sum(value is None for value in row.values()))}


class PhaseClock:
    """Times the named phases of one step; a phase entered again adds up."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block as ``time/<name>_s``, also when it raises."""
        entered = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - entered

    def metrics(self) -> dict[str, float]:
        """Seconds of every phase, and ``time/step_s`` since the clock was made."""
        phases = {f"time/{name}_s": seconds for name, seconds in self._seconds.items()}
        return {**phases, "time/step_s": time.monotonic() - self._started}
