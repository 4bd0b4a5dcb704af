"""Nothing outlives the driver, however it ends.

Ray's own processes go down with a driver that is killed, except two agents per node that first wait minutes for a
control store that is gone. So every process a run starts inherits a mark, and a small process that needs nothing but
the end of a pipe to learn of the driver's death ends whatever still bears it.

``python -m orchestrator.cluster.reaper MARK`` is that process.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_VARIABLE = "RAYLIGN_DRIVER"
_GRACE_S = 1.0
_LIMIT_S = 30.0


@contextmanager
def reaped_processes() -> Iterator[None]:
    """Mark every process started in the block, and end those that are left after it or after this process's death."""
    mark = uuid4().hex
    os.environ[_VARIABLE] = mark
    # Ray's agents rename themselves; without this they write the new name over their environment, and the mark.
    os.environ["SPT_NOENV"] = "1"
    # A session of its own: a Ctrl-C meant for the driver must not end it.
    reaper = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cluster.reaper", mark], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
        assert reaper.stdin is not None
        reaper.stdin.close()
        reaper.wait()


def marked_processes(mark: str) -> list[int]:
    """Ids of the running processes that were started with ``mark``, this one left out."""
    entry = f"{_VARIABLE}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue  # it has ended, or is not ours to look into
        if entry in environment.split(b"\0") and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def reap(mark: str) -> None:
    """Let marked processes end by themselves for a moment, then end them."""
    deadline = time.monotonic() + _LIMIT_S
    kill_after = time.monotonic() + _GRACE_S
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        if time.monotonic() > kill_after:
            for process in left:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        time.sleep(0.1)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    reap(sys.argv[1])
