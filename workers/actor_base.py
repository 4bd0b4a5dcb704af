"""What every Ray actor of the pool answers, whatever its role."""

import os
import socket

import psutil
import ray
import torch


class WorkerBase:
    """Health, memory and addressing; roles add their own methods."""

    def __init__(self, *, num_threads: int) -> None:
        torch.set_num_threads(num_threads)

    def ping(self) -> int:
        """Return the process id; a heartbeat."""
        return os.getpid()

    def rss_gib(self) -> float:
        """Resident memory of this process, GiB."""
        return psutil.Process().memory_info().rss / 2**30

    def rendezvous(self) -> tuple[str, int]:
        """Address and a free port on this actor's node, for a process group led by it."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]
