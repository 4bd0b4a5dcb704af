"""Faults of the reward service under load: rewards that are wrong, and rewards that the judge gave and nobody got.

python -m benchmarks.service_faults [SECONDS [FAULT ...]]

Each fault has a service of its own, a judge that knows what is right and notes every verdict it gave, and four clients
that send batches of new and of old items for SECONDS (5) and ask again for what failed, as a run does. Wrong is a
reward that is not the item's; lost is an item whose verdict the judge has given, and that has no reward at the end.
Exit code 1 where there is any. Run from the repository's root.
"""

import os
import random
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.contract.fake_judge import Depends, FakeJudge, Pour, Say, fake_judge

_CLIENTS, _BATCH = 4, 8
_PATIENCE_S = 60.0
_SHIFTING_CLOCK = """
import random, time
real, shift = time.time, [0.0]
def jumping():
    if random.random() < 0.01:
        shift[0] = random.uniform(-1e8, 1e8)
    return real() + shift[0]
time.time = jumping
"""


@dataclass
class Tally:
    """Of one fault."""

    rewards: dict[int, float] = field(default_factory=dict)
    wrong: int = 0
    cached: int = 0
    failed: int = 0
    """Answers without a reward; they are asked for again."""
    given: set[int] = field(default_factory=set)
    """Numbers of the items whose verdict the judge gave."""
    calls: int = 0

    @property
    def lost(self) -> int:
        """Items that the judge gave a verdict on, without a reward."""
        return len(self.given - self.rewards.keys())


class Service:
    """A real one, with what a fault needs to know of it."""

    def __init__(self, folder: Path, judge_url: str, variables: Mapping[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.cache = folder / "verdicts.sqlite"
        self._judge_url, self._variables, self._words = judge_url, variables, folder / "log"
        self.start()

    def start(self) -> None:
        """Anew, at the same address."""
        self._log = self._words.open("a")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "remote_rm.serve", "--port", str(self.port), "--cache", str(self.cache),
                "--judge", "openai", "--judge-url", self._judge_url, "--judge-model", "m", "--judge-timeout-s", "2",
            ],
            stdout=subprocess.PIPE, stderr=self._log, text=True, env={**os.environ, **self._variables},
        )  # fmt: skip
        assert self.process.stdout is not None
        if not self.process.stdout.readline().startswith("listening"):
            raise SystemExit(f"the service did not start: {self._words.read_text()[-500:]}")

    def end(self, how: int) -> None:
        """By a signal; returns when it has."""
        self.process.send_signal(how)
        self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


def main() -> None:
    """Every fault, or those that are named."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    print("| fault | items | answers cached | answers failed | judge asked | wrong | lost |")  # noqa: T201
    print("| --- " * 7 + "|")  # noqa: T201
    bad = 0
    for name in sys.argv[2:] or FAULTS:
        tally = run(name, seconds)
        bad += tally.wrong + tally.lost
        figures = (len(tally.rewards), tally.cached, tally.failed, tally.calls, tally.wrong, tally.lost)
        print(f"| {name} | {' | '.join(f'{figure:,}' for figure in figures)} |", flush=True)  # noqa: T201
    raise SystemExit(bad > 0)


def run(name: str, seconds: float) -> Tally:
    """One fault under load."""
    fault = FAULTS[name]
    tally = Tally()
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        judge = stack.enter_context(fake_judge(Depends(lambda asked: _verdict(asked, tally, fault.pours))))
        (folder / "sitecustomize.py").write_text(_SHIFTING_CLOCK if fault.jumps else "")
        here = str(Path(__file__).resolve().parent.parent)
        variables = {**fault.variables, "PYTHONPATH": f"{folder}:{here}"}
        service = Service(folder, fault.judge_url(judge), variables)
        ends = time.monotonic() + seconds
        stack.callback(lambda: service.process.poll() is None and service.end(signal.SIGKILL))
        clients = [
            threading.Thread(target=_ask, args=(service, first, tally, ends, fault)) for first in range(_CLIENTS)
        ]
        for client in clients:
            client.start()
        while time.monotonic() < ends:
            time.sleep(min(seconds / 5, 1.0))
            fault.act(service)
        for client in clients:
            client.join()
        service.end(signal.SIGTERM)
    return tally


def _verdict(asked: dict[str, Any], tally: Tally, pours: float) -> Say | Pour:
    words = asked["messages"][0]["content"]
    tally.calls += 1
    if random.random() < pours:
        return Pour()
    tally.given.add(int(words.rpartition("item ")[2].split()[0]))
    return Say("1" if "so response 1" in words else "0", after_s=0.01)


def _ask(service: Service, first: int, tally: Tally, ends: float, fault: "Fault") -> None:
    number = first
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=20.0, trust_env=False) as http:
        while time.monotonic() < ends:
            new = range(number, number + _CLIENTS * _BATCH, _CLIENTS)
            number = new.stop
            old = random.sample(list(tally.rewards), min(4, len(tally.rewards)))
            pending = {*new, *old}
            patience = time.monotonic() + (_PATIENCE_S if fault.passes else 0.0)
            while pending:
                pending -= _answered(http, pending, tally)
                if pending and time.monotonic() > patience:
                    break
                time.sleep(0.05 if pending else 0.0)


def _answered(http: httpx.Client, numbers: set[int], tally: Tally) -> set[int]:
    body = {"request_id": "r", "items": [_item(number) for number in numbers]}
    try:
        answer = http.post("/v1/rewards", json=body)
    except httpx.TransportError:
        return set()
    if answer.status_code != 200:
        return set()
    done = set()
    for item in answer.json()["items"]:
        number = int(item["id"])
        if item["reward"] is None or item["status"] not in ("scored", "cached"):
            tally.failed += 1
            continue
        tally.wrong += item["reward"] != (2.0 if number % 2 else 1.0)
        tally.cached += item["status"] == "cached"
        tally.rewards[number] = item["reward"]
        done.add(number)
    return done


def _item(number: int) -> dict[str, Any]:
    concluded = 1 if number % 2 else 2
    response = f"<think>\nitem {number} is seen\nso response {concluded}\n</think>\n<answer>1</answer>"
    return {"id": str(number), "prompt": "", "response": response, "label": "1"}


# -- faults ----------------------------------------------------------------------------------------------------------


def _nothing(service: Service) -> None:
    pass


def _full(service: Service) -> None:
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))


def _locked(service: Service) -> None:
    with sqlite3.connect(service.cache, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(1.0)
        other.execute("ROLLBACK")
    other.close()


def _corrupt(service: Service) -> None:
    for file in (service.cache, service.cache.with_name("verdicts.sqlite-wal")):
        if file.exists() and (size := file.stat().st_size):
            with file.open("r+b") as opened:
                for _ in range(20):
                    opened.seek(random.randrange(size))
                    opened.write(bytes([random.randrange(256)]))


def _tampered(service: Service) -> None:
    with sqlite3.connect(service.cache) as other:
        other.execute("UPDATE verdicts SET verdict = iif(verdict = 'consistent', 'inconsistent', 'consistent')")
    other.close()
    service.end(signal.SIGKILL)  # what it has read it remembers
    service.start()


def _deleted(service: Service) -> None:
    for file in service.cache.parent.glob("verdicts.sqlite*"):
        file.unlink(missing_ok=True)


def _killed(service: Service) -> None:
    service.end(signal.SIGKILL)
    service.start()


def _told_to_end(service: Service) -> None:
    service.end(signal.SIGTERM)
    service.start()


def _slow_clients(service: Service) -> None:
    for first in (b"POST /v1/rew", b"POST /v1/rewards HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{") * 20:
        connection = socket.create_connection(("127.0.0.1", service.port))
        connection.sendall(first)
        _slow.append(connection)


_slow = list[socket.socket]()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a service, again and again."""

    act: Callable[[Service], None] = _nothing
    judge_url: Callable[[FakeJudge], str] = lambda judge: judge.url
    variables: Mapping[str, str] = field(default_factory=dict)
    jumps: bool = False
    """The clock of the wall, to and fro by years."""
    pours: float = 0.0
    """Share of the judge's replies that do not end."""
    passes: bool = True
    """Whether clients that ask again get their rewards."""


_PROXIES = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")
FAULTS: dict[str, Fault] = {
    "none": Fault(),
    "disk full": Fault(act=_full),
    "locked": Fault(act=_locked),
    "corrupt": Fault(act=_corrupt),
    "tampered": Fault(act=_tampered),
    "deleted": Fault(act=_deleted),
    "killed": Fault(act=_killed),
    "SIGTERM": Fault(act=_told_to_end),
    "slow clients": Fault(act=_slow_clients),
    "replies without end": Fault(pours=0.05),
    "proxy variables": Fault(variables=_PROXIES),
    "no such host": Fault(judge_url=lambda judge: judge.url.replace("127.0.0.1", "judge.invalid"), passes=False),
    "clock jumps": Fault(jumps=True),
}

if __name__ == "__main__":
    main()
