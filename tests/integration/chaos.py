"""Accidents that happen to a run: which process is hit, and with what. Also used by ``benchmarks/chaos.py``."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.integration.runs import metric_rows

ACCIDENTS = {
    "engine killed": ("ray::RolloutWorker", signal.SIGKILL),
    "engine stopped": ("ray::RolloutWorker", signal.SIGSTOP),
    "policy rank killed": ("ray::PolicyWorker", signal.SIGKILL),
    "policy rank stopped": ("ray::PolicyWorker", signal.SIGSTOP),
    "critic rank killed": ("ray::CriticWorker", signal.SIGKILL),
    "reward service killed": ("remote_rm.serve", signal.SIGKILL),
}
_DEADLINE_S = 240.0
_JOINS_AFTER_S = 3.0


def run_with_accidents(
    arguments: Sequence[str], run_dir: Path, accidents: Sequence[tuple[str, int, float]]
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, and meanwhile let things happen.

    Args:
        accidents: What, after how many rows of metrics, and how many seconds later; in order.
    """
    command = [sys.executable, "-m", "orchestrator.train", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        try:
            for kind, rows_before, delay_s in accidents:
                _wait_for_rows(driver, run_dir, rows_before)
                time.sleep(delay_s)
                if driver.poll() is None:
                    _hit(driver.pid, kind)
            out, err = driver.communicate(timeout=_DEADLINE_S)
        except BaseException:
            driver.kill()
            raise
    return subprocess.CompletedProcess(command, driver.returncode, out, err)


def _wait_for_rows(driver: subprocess.Popen[str], run_dir: Path, count: int) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while len(metric_rows(run_dir)) < count and driver.poll() is None:
        assert time.monotonic() < deadline, f"no row {count} after {_DEADLINE_S:g} s"
        time.sleep(0.02)


def _hit(driver: int, kind: str) -> None:
    name, blow = ACCIDENTS[kind]
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        for process in psutil.Process(driver).children(recursive=True):
            try:
                if name in " ".join(process.cmdline()) and process.status() != psutil.STATUS_STOPPED:
                    process.send_signal(blow)
                    return
            except psutil.NoSuchProcess:
                continue  # it ended while we looked
        time.sleep(0.1)  # its successor is not there yet
    raise AssertionError(f"no process {name!r} under the driver")


def run_and_lose_a_node(
    arguments: Sequence[str], run_dir: Path, *, rows_before: int, delay_s: float
) -> subprocess.CompletedProcess[str]:
    """Run on a cluster of two nodes, one processor each, and take one away; another joins some seconds later.

    Policy and engine are on different nodes, and Ray decides which is on the one that goes.
    """
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 256 << 20})
    try:
        doomed = cluster.add_node(num_cpus=1, object_store_memory=256 << 20)
        command = [sys.executable, "-m", "orchestrator.train", *arguments, "--placement.layout", "separate"]
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as driver:
            try:
                _wait_for_rows(driver, run_dir, rows_before)
                time.sleep(delay_s)
                cluster.remove_node(doomed, allow_graceful=False)
                time.sleep(_JOINS_AFTER_S)
                cluster.add_node(num_cpus=1, object_store_memory=256 << 20)
                out, err = driver.communicate(timeout=_DEADLINE_S)
            except BaseException:
                driver.kill()
                raise
    finally:
        cluster.shutdown()
    return subprocess.CompletedProcess(command, driver.returncode, out, err)
