"""What a driver started does not outlive it: not when it ends, not when it is killed."""

import subprocess
import sys
import time

from orchestrator.cluster.reaper import marked_processes, reaped_processes

_SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
_DRIVER = """
import os, subprocess, sys, time
from orchestrator.cluster.reaper import reaped_processes
with reaped_processes():
    # A session of its own, as Ray's processes have: it would survive the driver.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    print(os.environ["RAYLIGN_DRIVER"], flush=True)
    time.sleep(60)
"""


def test_processes_left_after_the_block_are_ended() -> None:
    with subprocess.Popen(_SLEEPER) as bystander:
        with reaped_processes():
            left = subprocess.Popen(_SLEEPER, start_new_session=True)
        assert left.wait(timeout=5) != 0
        assert bystander.poll() is None, "only what was started in the block is ended"
        bystander.kill()


def test_processes_of_a_killed_driver_are_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", _DRIVER], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        mark = driver.stdout.readline().strip()
        assert len(marked_processes(mark)) == 2, "the child and the reaper"
        driver.kill()
    deadline = time.monotonic() + 15.0
    while marked_processes(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked_processes(mark) == []
