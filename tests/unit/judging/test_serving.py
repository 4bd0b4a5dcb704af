"""How a served judge ends: by signals, by lost workers, and on which machines it does not begin; no worker runs."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.cluster.placement import PlacementPlan, WorkerPlacement
from orchestrator.cluster.resources import ClusterResources, NodeResources
from orchestrator.cluster.waits import WorkerLost, watched_by
from orchestrator.config.load import load_config
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.judging import serving
from orchestrator.judging.app import Bounds
from orchestrator.judging.chat import ChatRequest, Reply
from orchestrator.judging.serving import listener_at, look_at, refuse_several_machines, serve_at
from orchestrator.run.folder import RunFolder
from workers.types import Prompt

_ASKED = {"model": "m", "messages": [{"role": "user", "content": "Which ?"}]}


class _Losing:
    """Its workers are lost by the first request; the second time they do not start."""

    plan = None

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.config = load_config(["--algo", "sft", "--model.path", "m", "--data.path", "-"])[0]
        self._before, self.num_opened = before, 0

    def read(self, request: ChatRequest, prompt: Prompt) -> Prompt:
        return prompt

    @contextlib.contextmanager
    def opened(self, config: Any) -> Iterator[Callable[[Sequence[Prompt]], list[Reply]]]:
        self.num_opened += 1
        if self.num_opened > 1:
            raise GuardStop("started again")

        def lose(works: Sequence[Prompt]) -> list[Reply]:
            self._before()
            raise WorkerLost(["rollout-0"], "gone")

        yield lose


def _served_until_it_ends(served: _Losing, folder: Path, ask: Callable[[int], None]) -> None:
    run = RunFolder(folder / "run")
    run.create()
    with listener_at("127.0.0.1", 0, has_token=False) as listener:
        asking = threading.Thread(target=ask, args=(listener.getsockname()[1],))
        asking.start()
        try:
            serve_at(served, listener, run, model="m", bounds=Bounds(), token=None)
        finally:
            asking.join()
            run.release()


def _ask(port: int) -> None:
    reply = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=_ASKED, timeout=30)
    assert reply.status_code == 503


def test_a_server_told_to_end_while_a_worker_is_lost_does_not_start_again(tmp_path: Path) -> None:
    served = _Losing(before=lambda: os.kill(os.getpid(), signal.SIGTERM))
    _served_until_it_ends(served, tmp_path, _ask)
    assert served.num_opened == 1


def test_nobody_keeps_a_server_without_workers_from_starting_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_AFTER_LOSS_S", 0.2)
    served, slow = _Losing(), socket.socket()

    def ask(port: int) -> None:
        slow.connect(("127.0.0.1", port))
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: judge\r\nContent-Length: 100\r\n\r\n{")
        _ask(port)

    began = time.monotonic()
    with slow, pytest.raises(GuardStop, match="started again"):
        _served_until_it_ends(served, tmp_path, ask)
    assert (served.num_opened, time.monotonic() - began < 20) == (2, True)


class _Deaf:
    """Has not heard of anybody."""

    def silent(self, workers: Any) -> dict[str, float]:
        return dict.fromkeys(workers, 99.0)

    def stalled(self, wait: Any) -> None:
        raise AssertionError("nobody waits")


def test_workers_that_nobody_asks_are_looked_at() -> None:
    place = WorkerPlacement(role="rollout", index=1, group="g", bundle_indices=(0,), num_gpus=0, num_cpus=1)
    plan = PlacementPlan("separate", (), (place,))
    look_at(plan)
    with watched_by(_Deaf()), pytest.raises(WorkerLost, match="rollout-1: no heartbeat for 99 s"):
        look_at(plan)
    with watched_by(_Deaf()):
        look_at(None)


def test_a_cluster_of_several_machines_is_refused() -> None:
    def of(*names: str) -> ClusterResources:
        return ClusterResources(nodes=tuple(NodeResources(name=name, cpus=1) for name in names))

    refuse_several_machines(of("10.0.0.1", "10.0.0.1#2"))
    with pytest.raises(RefusedInput, match="the cluster has 2 machines and the pictures of requests are on this one"):
        refuse_several_machines(of("10.0.0.1", "10.0.0.2"))
