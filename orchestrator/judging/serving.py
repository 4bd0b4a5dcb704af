"""A judge behind an address, until it is told to end: workers, then the server in the main thread.

Where a worker is lost, those who wait are told, and workers and server start again on the same socket.
"""

import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn

from orchestrator.cluster.launch import ray_cluster
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.resources import ClusterResources, machine_of
from orchestrator.cluster.waits import WorkerLost, silent_workers
from orchestrator.config.addresses import is_loopback
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.judging.app import Bounds, create_app
from orchestrator.judging.chat import Reply
from orchestrator.judging.desk import Desk
from orchestrator.judging.served import Served
from orchestrator.run.folder import RunFolder
from orchestrator.run.recovery import with_restarts

_BACKLOG = 512
# Longer than any client keeps an idle connection, so a request never meets a socket that is just being closed.
_KEEP_ALIVE_S = 75
_AFTER_LOSS_S = 10
"""Seconds for which those who were told of a loss keep the server from starting again."""


def listener_at(host: str, port: int, *, has_token: bool) -> socket.socket:
    """A socket that is bound: whoever connects before the workers are up waits.

    Raises:
        RefusedInput: it cannot be had, or others than this machine could ask without a token.
    """
    if not has_token and not is_loopback(host):
        raise RefusedInput(f"host = {host!r} is not loopback, so token_file is needed")
    if not 0 <= port <= 65535:
        raise RefusedInput(f"port = {port} should be from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise RefusedInput(f"cannot listen on {host} port {port}: {error.strerror}") from error


def serve_at(
    served: Served[Any],
    listener: socket.socket,
    folder: RunFolder,
    *,
    model: str,
    bounds: Bounds,
    token: str | None,
) -> None:
    """Answer until SIGTERM or SIGINT; requests under way are answered first.

    Args:
        folder: Its log keeps what is lost.
        model: Its name for those who ask.
    Raises:
        GuardStop: workers cannot start, or were lost too often.
    """

    def once(config: TrainConfig) -> None:
        with served.opened(config) as answer, TemporaryDirectory(prefix="raylign-asked-") as pictures:
            _listen(served, answer, listener, Path(pictures), config, model=model, bounds=bounds, token=token)

    with nullcontext() if served.plan is None else ray_cluster(served.plan):
        with_restarts(once, served.config, folder)


def _listen(
    served: Served[Any],
    answer: Callable[[Sequence[Any]], list[Reply]],
    listener: socket.socket,
    pictures: Path,
    config: TrainConfig,
    *,
    model: str,
    bounds: Bounds,
    token: str | None,
) -> None:
    def stop() -> None:
        server.config.timeout_graceful_shutdown = _AFTER_LOSS_S
        server.should_exit = True

    desk = Desk(answer, on_fault=stop, look=lambda: look_at(served.plan))
    app = create_app(served, desk, model=model, bounds=bounds, folder=pictures, token=token)
    server = _Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(config.rollout.timeout_s),
        ),
        model,
    )
    # The server closes what it listens on, and another may follow.
    with _signals() as told_to_end:
        server.run([listener.dup()])
    if desk.fault is not None and not told_to_end:
        raise desk.fault


def look_at(plan: PlacementPlan | None) -> None:
    """Look at workers that nobody asks anything.

    Raises:
        WorkerLost: one of them has fallen silent.
    """
    names = [f"{worker.role}-{worker.index}" for worker in plan.workers] if plan is not None else []
    for name, reason in silent_workers(names).items():
        raise WorkerLost([name], reason)


def refuse_several_machines(cluster: ClusterResources) -> None:
    """Pictures of requests are kept in this machine's temporary folder, where workers of another do not find them.

    Raises:
        RefusedInput: there are others.
    """
    machines = {machine_of(node.name) for node in cluster.nodes}
    if len(machines) > 1:
        raise RefusedInput(
            f"the cluster has {len(machines)} machines and the pictures of requests are on this one alone: --serve "
            f"needs a cluster of one machine"
        )


class _Server(uvicorn.Server):
    """Says where it listens as soon as it does."""

    def __init__(self, config: uvicorn.Config, model: str) -> None:
        super().__init__(config)
        self._model = model

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            sys.stdout.write(f"{self._model} listens on http://{host}:{port}/v1\n")
            sys.stdout.flush()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Those that tell the server to end, even while it is ending: uvicorn raises those that it took once more."""
    told = list[int]()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda taken, _: told.append(taken)) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
