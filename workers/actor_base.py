"""What every Ray actor of the pool answers, whatever its role."""

import os
import socket
from typing import Any

import ray
import torch

from workers.heartbeat import start_heartbeat


class WorkerBase:
    """Health and addressing; roles add their own methods."""

    def __init__(self, *, num_threads: int, name: str | None = None, board: Any = None) -> None:
        """Start reporting to ``board`` under ``name``, unless there is none."""
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
