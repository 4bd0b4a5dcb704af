"""Ports: workers and the run's own service take free ones; the services that are started by hand have a fixed one."""

import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from orchestrator.diagnosis.finding import Finding

_LOOPBACK = "127.0.0.1"
_SERVICE = 8400
"""Where ``python -m remote_rm.serve`` listens unless it is told otherwise."""
_AT_ONCE = 64
"""Ray's processes, ranks and the reward service of a small machine take about so many."""
_CONNECT_S = 5.0


def free_ports() -> Iterator[Finding]:
    """Whether this machine still gives away ports, and whether somebody holds ours."""
    taken: list[socket.socket] = []
    try:
        for _ in range(_AT_ONCE):
            taken.append(socket.create_server((_LOOPBACK, 0)))
    except OSError as error:
        found = f"only {len(taken)} ports of {_LOOPBACK} could be had, {_AT_ONCE} wanted: {error.strerror}"
        yield Finding("FAIL", found, "end what holds them, or widen net.ipv4.ip_local_port_range")
        return
    finally:
        for one in taken:
            one.close()
    yield judge_service_port(_SERVICE)
    if (address := os.environ.get("RAY_ADDRESS")) is not None:
        yield judge_ray_address(address)


def judge_service_port(port: int) -> Finding:
    """Whether a reward service could be started here by hand, without an option."""
    try:
        socket.create_server((_LOOPBACK, port)).close()
    except OSError:
        found = f"port {port} is in use, where python -m remote_rm.serve listens"
        return Finding("warn", found, "start a service with --port, unless it is the one of reward.url")
    return Finding("ok", f"{_AT_ONCE} free ones at once, and {port} for python -m remote_rm.serve")


def judge_ray_address(address: str) -> Finding:
    """Whether the cluster that the environment names is there."""
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if address in ("auto", "local") or host is None or port is None:
        return Finding("ok", "RAY_ADDRESS leaves the cluster to Ray")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        found = f"RAY_ADDRESS = {host}:{port} does not answer: {error.strerror or error}"
        return Finding("FAIL", found, "start the cluster, or unset RAY_ADDRESS to run on this machine")
    return Finding("ok", f"the cluster of RAY_ADDRESS answers at {host}:{port}")
