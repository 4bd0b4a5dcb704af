"""The real service for tests: in this process over ASGI, or as a process of its own."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
from fastapi import FastAPI


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
