"""The server: so many connections, each with deadlines for what it sends and reads, and an end in bounded time.

connected ──head──► request ──body (gate)──► answer, read by the client ──► idle ──► closed
    └──────── deadline ────────┴──────────────── deadline ──┘       └─ keep-alive ─┘
"""

import asyncio
import os
import socket
import sys
import threading
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from remote_rm.metrics import Metrics

_MOST_HEAD_BYTES = 1 << 16
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_FORCED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionBounds:
    """What connections may cost."""

    most: int = 512
    head_s: float = 20.0
    """In which a request's line and headers have to arrive, once it or its connection has begun."""
    read_s: float = 60.0
    """In which a client that has stopped reading has to go on."""
    # Longer than any client keeps an idle connection, so a request never meets a socket that is just being closed.
    keep_alive_s: int = 75
    end_s: int = 10
    """From SIGTERM to the end; requests that have arrived have so long to be answered."""


class Connection(HttpToolsProtocol):
    """One client's; ``bounds`` and ``metrics`` are those of the server's class."""

    bounds: ConnectionBounds
    metrics: Metrics

    _deadline: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refused where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.most:
            self.metrics.refused_connections.inc()
            transport.write(_FULL)
            transport.close()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop(self._deadline, self._reading)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A head that never ends is not kept."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES:
                self._late()

    def on_message_begin(self) -> None:
        """The deadline of its head begins."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """From here on the body's deadline counts."""
        self._stop(self._deadline)
        self._deadline = None
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The client does not read; it has a while to."""
        super().pause_writing()
        self._stop(self._reading)
        self._reading = self.loop.call_later(self.bounds.read_s, self._late)

    def resume_writing(self) -> None:
        """It reads again."""
        self._stop(self._reading)
        super().resume_writing()

    def shutdown(self) -> None:
        """A request that has not arrived is not waited for: nobody has done anything for it."""
        super().shutdown()
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_started:
            self.transport.close()

    def _expect_head(self) -> None:
        self._stop(self._deadline)
        self._head_bytes = 0
        self._deadline = self.loop.call_later(self.bounds.head_s, self._late)

    def _late(self) -> None:
        self.metrics.late_connections.inc()
        self.transport.abort()

    @staticmethod
    def _stop(*timers: asyncio.TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()


class Server(uvicorn.Server):
    """Says where it listens as soon as it does, and ends in bounded time once it is told to."""

    def __init__(self, app: FastAPI, metrics: Metrics, bounds: ConnectionBounds | None = None) -> None:
        bounds = bounds or ConnectionBounds()
        kind = type("BoundedConnection", (Connection,), {"bounds": bounds, "metrics": metrics})
        super().__init__(
            uvicorn.Config(
                app,
                http=kind,
                ws="none",
                access_log=False,
                log_config=None,
                timeout_keep_alive=bounds.keep_alive_s,
                timeout_graceful_shutdown=bounds.end_s - 2,
            )
        )
        self._end_s = bounds.end_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Print the address."""
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            sys.stdout.write(f"listening on http://{host}:{port}\n")
            sys.stdout.flush()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End, and soon: whatever still waits then, a thread or a file, does not keep the process."""
        if not self.should_exit:
            forced = threading.Timer(self._end_s, os._exit, [_FORCED])
            forced.daemon = True
            forced.start()
        super().handle_exit(sig, frame)
