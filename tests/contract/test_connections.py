"""Connections that are slow, too many, or held open end by themselves, and so does the service when it is told to."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from remote_rm.app import Limits, create_app
from remote_rm.connections import ConnectionBounds
from remote_rm.judges.rules import RulesJudge
from remote_rm.metrics import Metrics
from tests.contract.service import listening, serving

_HALF = b"POST /v1/rewards HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"


@contextmanager
def _served(
    *, most: int = 512, s: float = 0.3, limits: Limits | None = None, **more: Any
) -> Iterator[tuple[int, Metrics]]:
    metrics, bounds = Metrics(), ConnectionBounds(most=most, head_s=s, read_s=s, **more)
    app = create_app(RulesJudge(), None, metrics=metrics, limits=limits or Limits(body_s=s))
    with listening(app, metrics, bounds) as port:
        yield port, metrics


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def _all_of(connection: socket.socket) -> bytes:
    """Until the other side closes; a connection that stays is an error after a minute."""
    found = b""
    try:
        while data := connection.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def _drip(connection: socket.socket, data: bytes) -> threading.Thread:
    def send() -> None:
        try:
            while True:
                connection.sendall(data)
                time.sleep(0.02)
        except OSError:
            return

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "first", [b"", b"POST /", b"POST /v1/rewards HTTP/1.1\r\nA: "], ids=["nothing", "a line", "headers"]
)
def test_a_head_that_does_not_come_ends_its_connection(first: bytes) -> None:
    with _served() as (port, metrics), _connected(port) as connection:
        connection.sendall(first)
        dripping = _drip(connection, b"x") if first else None
        assert _all_of(connection) == b""
        if dripping is not None:
            dripping.join(60)
        assert b"connections_late_total 1.0" in metrics.render()


def test_a_head_without_end_is_not_kept() -> None:
    with _served(s=60.0) as (port, metrics), _connected(port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        _drip(connection, b"a: " + b"x" * 30_000 + b"\r\n").join(60)
        assert _all_of(connection) == b""
        assert b"connections_late_total 1.0" in metrics.render()


def test_a_second_head_on_a_kept_connection_has_its_deadline_too() -> None:
    with _served() as (port, _), _connected(port) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET /metr")
        assert _all_of(connection).count(b"HTTP/1.1 200 OK") == 1


def test_a_body_that_drips_in_is_answered_408_and_its_connection_closed() -> None:
    with _served() as (port, metrics), _connected(port) as connection:
        connection.sendall(_HALF)
        dripping = _drip(connection, b" ")
        answer = _all_of(connection)
        dripping.join(60)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"the body took longer than 0.3 s" in answer
        assert b"connections_late_total 1.0" in metrics.render()


def test_an_idle_connection_is_closed() -> None:
    with _served(keep_alive_s=1) as (port, _), _connected(port) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert _all_of(connection).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_does_not_read_is_let_go() -> None:
    item = {"id": "x" * 250, "prompt": "", "response": "x", "label": "1"}
    items = [item | {"id": f"{i}{item['id']}"[:256]} for i in range(4096)]
    request = httpx.Request("POST", "http://a/v1/rewards", json={"request_id": "r", "items": items})
    head = "POST /v1/rewards HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: "
    with _served(limits=Limits()) as (port, metrics), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        asking = _drip(connection, f"{head}{len(request.content)}\r\n\r\n".encode() + request.content)
        for _ in range(600):
            if b"connections_late_total 1.0" in metrics.render():
                break
            time.sleep(0.1)
        asking.join(60)
        assert b"connections_late_total 1.0" in metrics.render()


def test_connections_beyond_the_most_are_told_to_come_back() -> None:
    with _served(most=2, s=60.0) as (port, metrics), _connected(port), _connected(port):
        with _connected(port) as third:
            answer = _all_of(third)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1" in answer
        assert b"connections_refused_total 1.0" in metrics.render()
    with _served(most=2) as (port, _):
        for _ in range(5):
            assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200


def test_bodies_that_are_held_together_are_bounded() -> None:
    with _served(s=60.0, limits=Limits(max_bodies_bytes=500)) as (port, _), _connected(port) as first:
        first.sendall(_HALF + b" " * 400)
        time.sleep(0.2)
        body = {"request_id": "r" * 200, "items": []}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/rewards", json=body)
        assert (answer.status_code, answer.json()) == (
            503,
            {"detail": "500 bytes of other requests are held; ask again"},
        )
        first.close()
        for _ in range(600):
            if httpx.post(f"http://127.0.0.1:{port}/v1/rewards", json=body).status_code == 200:
                return
            time.sleep(0.1)
        pytest.fail("what a client that left had sent still counts")


def test_a_body_that_ends_early_is_no_request() -> None:
    with _served(s=60.0) as (port, metrics):
        with _connected(port) as connection:
            connection.sendall(_HALF)
        for _ in range(600):
            if b"raylign_clients_left_total 1.0" in metrics.render():
                return
            time.sleep(0.1)
        pytest.fail("nobody noticed")


def test_sigterm_ends_the_service_though_clients_hold_half_a_head_and_half_a_body() -> None:
    with serving() as (url, process):
        port = int(url.rpartition(":")[2])
        with _connected(port) as body, _connected(port) as head, _connected(port) as idle:
            body.sendall(_HALF)
            head.sendall(b"POST /v1")
            idle.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            assert idle.recv(12) == b"HTTP/1.1 200"
            process.terminate()
            process.wait(timeout=60)
