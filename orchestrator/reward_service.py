"""The reward service as a Ray-managed process: it starts with the run and cannot outlive it."""

import ctypes
import os
import signal
import subprocess
import sys
from typing import Any

import ray

_PR_SET_PDEATHSIG = 1


class RewardServiceActor:
    """Owns one ``python -m remote_rm.serve`` process on a free loopback port."""

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "remote_rm.serve", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=_die_with_parent,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )

    def url(self) -> str:
        """Wait until the service listens and return its address.

        Raises:
            RuntimeError: the process ended instead.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("listening on "):
                return line.removeprefix("listening on ").strip()
        raise RuntimeError(f"the reward service ended with exit code {self._process.wait()} before listening")

    def ping(self) -> int:
        """Process id of the service while it runs.

        Raises:
            RuntimeError: the service has ended.
        """
        if self._process.poll() is not None:
            raise RuntimeError(f"the reward service ended with exit code {self._process.returncode}")
        return self._process.pid


def start_reward_service(arguments: list[str]) -> Any:
    """Start the service on this node; it takes no CPU of the plan."""
    return ray.remote(RewardServiceActor).options(num_cpus=0).remote(arguments)


def _die_with_parent() -> None:
    # SIGKILLing the driver takes Ray's workers down; the kernel then takes this process down with its worker.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
