"""The process of the reward service, inside the actor that owns it.

The actor loads what is imported here, so nothing here imports torch: it would cost each run seconds and a gigabyte.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from workers.actor_base import start_heartbeat

_PR_SET_PDEATHSIG = 1
_STOP_S = 5.0


class RewardServiceActor:
    """Owns one ``python -m remote_rm.serve`` process on a free loopback port.

    No secret stands in its arguments, which any user of the machine can list: keys travel as names of files.
    """

    def __init__(self, arguments: list[str], log: str, board: Any) -> None:
        self._log = Path(log)
        with self._log.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "remote_rm.serve", "--port", "0", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=_die_with_parent,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            )
        start_heartbeat("reward-0", board, pid=self._process.pid)

    def url(self) -> str:
        """Wait until the service listens and return its address.

        Raises:
            RuntimeError: the process ended instead.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("listening on "):
                return line.removeprefix("listening on ").strip()
        told = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        code = self._process.wait()
        raise RuntimeError(f"the reward service ended with exit code {code} before listening: {''.join(told)}")

    def stop(self) -> None:
        """Ask the service to end, and wait a moment for it."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_STOP_S)

    def ping(self) -> int:
        """Process id of the service while it runs.

        Raises:
            RuntimeError: the service has ended.
        """
        if self._process.poll() is not None:
            raise RuntimeError(f"the reward service ended with exit code {self._process.returncode}")
        return self._process.pid


def _die_with_parent() -> None:
    # SIGKILLing the driver takes Ray's workers down; the kernel then takes this process down with its worker.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
