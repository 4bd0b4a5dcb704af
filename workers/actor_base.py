"""What every Ray actor of the pool does, whatever its role: it answers, and tells that it lives."""

import os
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

import psutil
import ray
import ray.exceptions

PERIOD_S = 2.0
_FRAMES = 12


class WorkerBase:
    """Health and addressing; roles add their own methods."""

    def __init__(self, *, num_threads: int, name: str | None = None, board: Any = None) -> None:
        """Start reporting to ``board`` under ``name``, unless there is none."""
        import torch  # deferred: the board that reads heartbeats needs none

        torch.set_num_threads(num_threads)
        if board is not None:
            assert name is not None
            start_heartbeat(name, board)

    def ping(self) -> int:
        """Return the process id; a heartbeat."""
        return os.getpid()

    def rendezvous(self) -> tuple[str, int]:
        """Address and a free port on this actor's node, for a process group led by it."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a worker says of itself."""

    worker: str
    pid: int
    rss_gib: float
    """Resident memory of the process, GiB."""
    stacks: str
    """The innermost frames of every Python thread, so that a worker that hangs has said where before it fell silent."""


def start_heartbeat(worker: str, board: Any, *, pid: int | None = None) -> None:
    """Report this process, or the memory of its child ``pid``, as ``worker``.

    Tells ``board``, an actor with a method ``beat``, every ``PERIOD_S`` seconds from a thread of its own. The thread
    runs while the worker's own thread computes. It stops with the process, is silent while the process is stopped or
    holds the interpreter lock, and never waits for an answer.
    """
    threading.Thread(target=_beat, args=(worker, board, pid or os.getpid()), name="heartbeat", daemon=True).start()


def _beat(worker: str, board: Any, pid: int) -> None:
    process = psutil.Process(pid)
    while True:
        try:
            rss_gib = process.memory_info().rss / 2**30
            beat = Beat(worker=worker, pid=pid, rss_gib=rss_gib, stacks=stacks_of_threads())
            board.beat.options(num_returns=0).remote(beat)
        except (psutil.NoSuchProcess, ray.exceptions.RayError):
            return  # the child has ended; or the board went with the driver, and Ray ends this process next
        time.sleep(PERIOD_S)


def stacks_of_threads() -> str:
    """The innermost frames of every thread of this process but the calling one."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines: list[str] = []
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            lines += [f"thread {names.get(ident, ident)}", *traceback.format_stack(frame)[-_FRAMES:]]
    return "\n".join(line.rstrip() for line in lines)
