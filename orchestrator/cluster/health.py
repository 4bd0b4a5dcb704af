"""Who is alive: the board every worker reports to, and the driver's reading of it.

Death is seen by Ray, which fails the call that waits. A worker that is stopped, swapped out or deadlocked with the
interpreter lock held is not dead: it has fallen silent, and only its missing heartbeat tells.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psutil
import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.waits import Wait, get
from workers.actor_base import Beat

_log = logging.getLogger(__name__)
_READ_S = 20.0
_DEATH_NOTICE_S = 5.0


class HealthBoard:
    """The actor that keeps each worker's last heartbeat, and by its own clock when it came."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, Beat | None]] = {}

    def beat(self, beat: Beat) -> None:
        """Note a heartbeat."""
        self._last[beat.worker] = (time.monotonic(), beat)

    def expect(self, worker: str) -> None:
        """A process that takes the worker's name is being started; what its predecessor said is void."""
        self._last[worker] = (time.monotonic(), None)

    def read(self) -> dict[str, tuple[float, Beat | None]]:
        """Seconds since each was heard of, with its last heartbeat; None and since its start before the first."""
        now = time.monotonic()
        return {worker: (now - at, beat) for worker, (at, beat) in self._last.items()}


class Health:
    """The driver's side: who has fallen silent, what each role holds, where everybody stands."""

    def __init__(self, *, silent_after_s: float, start_within_s: float) -> None:
        """
        Args:
            silent_after_s: A worker whose last heartbeat is older is lost.
            start_within_s: So is one that was started longer ago and has not sent any.
        """
        self._silent_after_s, self._start_within_s = silent_after_s, start_within_s
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.board: Any = ray.remote(HealthBoard).options(num_cpus=0, scheduling_strategy=here).remote()

    def expect(self, worker: str) -> None:
        """A new process is about to take the worker's name."""
        self.board.expect.remote(worker)

    def silent(self, workers: Iterable[str]) -> dict[str, float]:
        """Those of ``workers`` that should have been heard of, with the seconds since they were, or were started."""
        read = self._read()
        known = {worker: read[worker] for worker in workers if worker in read}
        return {worker: age for worker, (age, beat) in known.items() if age > self._patience_s(beat)}

    def rss_gib(self) -> dict[str, float]:
        """Resident memory by role, GiB; the largest of its workers, as of their last heartbeats."""
        by_role = {"driver": psutil.Process().memory_info().rss / 2**30}
        for worker, (_, beat) in self._read().items():
            if beat is None:
                continue
            role = worker.rsplit("-", 1)[0]
            by_role[role] = max(by_role.get(role, 0.0), beat.rss_gib)
        return by_role

    def stalled(self, wait: Wait) -> None:
        """Write to the log where every worker stands, because ``wait`` is past its deadline."""
        for worker, (age, beat) in sorted(self._read().items(), key=lambda item: item[0]):
            if beat is None:
                _log.warning("%s is overdue; %s was started %.0f s ago and not heard of", wait.name, worker, age)
                continue
            _log.warning(
                "%s is overdue; %s (pid %d) was heard of %.0f s ago, at:\n%s",
                wait.name, worker, beat.pid, age, beat.stacks,
            )  # fmt: skip

    def _patience_s(self, beat: Beat | None) -> float:
        return self._start_within_s if beat is None else self._silent_after_s

    def _read(self) -> Mapping[str, tuple[float, Beat | None]]:
        # Not through waits.get, which asks this board about whatever it waits for.
        try:
            return ray.get(self.board.read.remote(), timeout=_READ_S)
        except ray.exceptions.GetTimeoutError:
            _log.warning("the health board has not answered within %.0f s; nobody is taken for lost", _READ_S)
            return {}


def ended(actors: Sequence[Any]) -> list[int]:
    """Indices of those whose process has ended; one that is busy, even forever, is not among them."""
    refs = {actor.ping.remote(): index for index, actor in enumerate(actors)}
    ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=_DEATH_NOTICE_S)
    dead = []
    for ref in ready:
        try:
            get(ref, name="death notice", deadline_s=_DEATH_NOTICE_S)
        except ray.exceptions.RayActorError:
            dead.append(refs[ref])
    return dead
