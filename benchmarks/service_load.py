"""Requests and items a second of the reward service on one core, and of another checkout's beside it.

python -m benchmarks.service_load [OTHER_CHECKOUT ...]

The service has one core to itself and asks its rules; all verdicts are in its cache before it is measured, and every
answer is looked at: a reward that is not the expected one, or is not from the cache, ends the script. Single items come
over 1 and over 16 connections that are kept, batches of 256 over 4. Checkouts take turns, round after round, and the
best of three rounds counts. Nothing else should run beside it.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import machine_lines

_ROUNDS = 3
_ITEMS = 2048
_BATCH = 256
_SHAPES = {
    # name: (items of a request, connections, requests)
    "single items, 1 connection": (1, 1, 600),
    "single items, 16 connections": (1, 16, 3000),
    "batches of 256, 4 connections": (_BATCH, 4, 80),
}


def main() -> None:
    """Measure this checkout and those that are named."""
    here = Path(__file__).resolve().parent.parent
    checkouts = [here, *(Path(path).resolve() for path in sys.argv[1:])]
    print(*machine_lines(), sep="\n")  # noqa: T201
    best: dict[tuple[Path, str], float] = {}
    for _ in range(_ROUNDS):
        for checkout in checkouts:
            for name, rate in _measured(checkout).items():
                best[checkout, name] = max(best.get((checkout, name), 0.0), rate)
    for checkout in checkouts:
        print(f"\n{'this checkout' if checkout == here else checkout.name}")  # noqa: T201
        for name, (size, _, _) in _SHAPES.items():
            rate = best[checkout, name]
            print(f"  {name:32} {rate:8,.0f} requests/s {rate * size:10,.0f} items/s")  # noqa: T201


def _measured(checkout: Path) -> dict[str, float]:
    with _serving(checkout) as (port, _):
        asyncio.run(_load(port, _BATCH, 1, _ITEMS // _BATCH, status=None))
        return {
            name: asyncio.run(_load(port, size, connections, requests, status="cached"))
            for name, (size, connections, requests) in _SHAPES.items()
        }


async def _load(port: int, size: int, connections: int, requests: int, *, status: str | None) -> float:
    """Requests a second."""
    bodies = [_request(first, size) for first in range(0, _ITEMS, size)]
    numbers = iter(range(requests))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            writer.write(bodies[number % len(bodies)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            answer = await reader.readexactly(int(length.partition(b":")[2]))
            if head[9:12] != b"200" or answer.count(b'"reward":2.0') != size:
                raise SystemExit(f"wrong answer: {head[:15]!r} {answer[:300]!r}")
            if status is not None and answer.count(f'"{status}"'.encode()) != size:
                raise SystemExit(f"not {status}: {answer[:300]!r}")
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)))
    return requests / (time.perf_counter() - began)


def _request(first: int, size: int) -> bytes:
    response = "<think>\n{} what the image shows\nResponse 1 is better.\n</think>\n<answer>1</answer>"
    items = [
        {"id": f"p/{i}", "prompt": "Which is better?", "response": response.format(f"{i} " * 40), "label": "1"}
        for i in range(first, first + size)
    ]
    body = json.dumps({"request_id": "r", "items": items}).encode()
    head = (
        f"POST /v1/rewards HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def _serving(checkout: Path) -> Iterator[tuple[int, int]]:
    """A service with the machine's last core to itself: its port and process id."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "remote_rm.serve", "--port", "0", "--cache", f"{folder}/verdicts.sqlite"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            preexec_fn=lambda: os.sched_setaffinity(0, cores[-1:]),
        )
        os.sched_setaffinity(0, cores[:-1] or cores)
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().rpartition(":")[2]), process.pid
        finally:
            os.sched_setaffinity(0, cores)
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
