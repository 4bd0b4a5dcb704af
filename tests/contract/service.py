"""The real service for tests: in this process over ASGI, or as a process of its own."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
from fastapi import FastAPI

from remote_rm.connections import ConnectionBounds, Server
from remote_rm.metrics import Metrics


@asynccontextmanager
async def in_process(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app, started and shut down as a server would."""
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        yield client


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """``python -m remote_rm.serve`` on a free port; yields its address and process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "remote_rm.serve", "--port", "0", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on http://"), f"the service said {line!r}"
        yield line.removeprefix("listening on ").strip(), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def listening(app: FastAPI, metrics: Metrics, bounds: ConnectionBounds) -> Iterator[int]:
    """The real server on a free port of this process, with other bounds; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(app, metrics, bounds)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
