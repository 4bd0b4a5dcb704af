"""A judge endpoint of a real HTTP server that misbehaves on request."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Say:
    """A well-formed chat completion with this content, after a while."""

    content: Any
    after_s: float = 0.0
    finish: str | None = "stop"
    reasoning: str | None = None


@dataclass(frozen=True)
class Body:
    """These bytes with this HTTP status."""

    data: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """The connection closes without an answer."""


@dataclass(frozen=True)
class Pour:
    """An answer that does not end."""

    status: int = 200


@dataclass(frozen=True)
class Depends:
    """Whatever this makes of the request."""

    on: Callable[[dict[str, Any]], Say | Body]


Behaviour = Say | Body | Drop | Pour | Depends


class FakeJudge:
    """Behaves as scripted, call after call; the last behaviour repeats."""

    def __init__(self, script: Sequence[Behaviour]) -> None:
        self._script = list(script)
        self._lock = threading.Lock()
        self._running = 0
        self.requests: list[dict[str, Any]] = []
        self.most_at_once = 0
        self.poured = 0
        self.url = ""

    def behave(self, *script: Behaviour) -> None:
        """Replace the script."""
        with self._lock:
            self._script = list(script)

    def next(self, request: dict[str, Any]) -> Behaviour:
        with self._lock:
            self.requests.append(request)
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
            return self._script.pop(0) if len(self._script) > 1 else self._script[0]

    def done(self) -> None:
        with self._lock:
            self._running -= 1


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that is killed in the middle of a request is no error here."""
        if not isinstance(sys.exception(), ConnectionError | json.JSONDecodeError):
            super().handle_error(request, client_address)


@contextmanager
def fake_judge(*script: Behaviour) -> Iterator[FakeJudge]:
    """Run one on a free port."""
    judge = FakeJudge(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            behaviour = judge.next(request)
            try:
                self._act(behaviour.on(request) if isinstance(behaviour, Depends) else behaviour)
            except (BrokenPipeError, ConnectionResetError):
                # The caller gave up waiting, as it should.
                self.close_connection = True
            finally:
                judge.done()

        def _act(self, behaviour: Say | Body | Drop | Pour) -> None:
            match behaviour:
                case Say(content, after_s, finish, reasoning):
                    time.sleep(after_s)
                    message = {"role": "assistant", "content": content, "reasoning_content": reasoning}
                    choice = {"index": 0, "message": message, "finish_reason": finish}
                    self._send(200, json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode())
                case Body(data, status, headers):
                    self._send(status, data, headers)
                case Drop():
                    self.close_connection = True
                case Pour(status):
                    self.send_response(status)
                    self.end_headers()
                    while True:
                        judge.poured += self.wfile.write(b" " * (1 << 16))

        def _send(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield judge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
