"""A verdict cache that fails while the service runs costs the verdicts it would have kept, and no reward."""

import asyncio
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_rm.app import create_app
from remote_rm.judges.protocol import Judgement
from remote_rm.judges.rules import RulesJudge
from remote_rm.verdict_cache import CacheKey, VerdictCache
from tests.contract.service import in_process

RIGHT = "<think>\nline {}\nResponse 1 is better.\n</think>\n<answer>1</answer>"
_FULL = """
import resource, sys
from pathlib import Path
from remote_rm.judges.protocol import Judgement
from remote_rm.verdict_cache import CacheKey, VerdictCache
path, faults = Path(sys.argv[1]), []
cache = VerdictCache(path)
cache.on_fault = lambda: faults.append(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
for number in range(400):
    key = CacheKey.of("judge", "1", "x", str(number))
    cache.put(key, Judgement("consistent", "y" * 200))
    cache.get(key)
print(len(faults))
"""


def _drop_table(path: Path, _: VerdictCache) -> None:
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE verdicts")
    other.close()


def _another_schema(path: Path, _: VerdictCache) -> None:
    with sqlite3.connect(path) as other:
        other.execute("ALTER TABLE verdicts RENAME COLUMN verdict TO said")
    other.close()


def _corrupt(path: Path, _: VerdictCache) -> None:
    with sqlite3.connect(path) as other:
        other.execute("INSERT INTO verdicts VALUES ('another', '', '', 'consistent', '')")
        other.commit()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    with path.open("r+b") as opened:
        opened.write(b"\xff" * path.stat().st_size)


def _strange_verdicts(path: Path, _: VerdictCache) -> None:
    with sqlite3.connect(path) as other:
        other.execute("UPDATE verdicts SET verdict = 'banana'")
    other.close()


def _undecodable(path: Path, _: VerdictCache) -> None:
    with sqlite3.connect(path) as other:
        other.execute("UPDATE verdicts SET raw = CAST(X'ff' AS TEXT)")
    other.close()


def _read_only(_: Path, cache: VerdictCache) -> None:
    cache._db.execute("PRAGMA query_only = ON")


def _closed(_: Path, cache: VerdictCache) -> None:
    cache._db.close()


@pytest.mark.parametrize(
    "spoil", [_drop_table, _another_schema, _corrupt, _strange_verdicts, _undecodable, _read_only, _closed]
)
def test_a_cache_that_breaks_costs_no_reward_and_is_counted_and_told_once(
    spoil: Callable[[Path, VerdictCache], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "v.sqlite"
    cache = VerdictCache(path)

    async def run() -> tuple[list[dict[str, Any]], str]:
        async with in_process(create_app(RulesJudge(), cache)) as client:
            await client.post("/v1/rewards", json=_body(0, 2))
            spoil(path, cache)
            answer = await client.post("/v1/rewards", json=_body(0, 6))
            assert answer.status_code == 200
            return answer.json()["items"], (await client.get("/metrics")).text

    with caplog.at_level(logging.WARNING):
        items, metrics = asyncio.run(run())
    assert [item["reward"] for item in items] == [2.0] * 6
    assert "raylign_verdict_cache_faults_total 1.0" in metrics
    assert [record.message for record in caplog.records if "verdict cache" in record.message] != []
    assert len([record for record in caplog.records if "verdict cache" in record.message]) == 1


def test_a_locked_cache_is_waited_for_once_and_not_by_every_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remote_rm.verdict_cache._BUSY_TIMEOUT_S", 0.3)
    path = tmp_path / "v.sqlite"
    cache = VerdictCache(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def run() -> list[dict[str, Any]]:
        async with in_process(create_app(RulesJudge(), cache)) as client, asyncio.timeout(3.0):
            return (await client.post("/v1/rewards", json=_body(0, 40))).json()["items"]

    items = asyncio.run(run())
    other.close()
    assert [(item["reward"], item["status"]) for item in items] == [(2.0, "scored")] * 40


def test_a_cache_that_recovers_is_used_again(tmp_path: Path) -> None:
    now = [0.0]
    cache = VerdictCache(tmp_path / "v.sqlite", clock=lambda: now[0])
    key, yes = CacheKey.of("judge", "1", "tail", "answer"), Judgement("consistent", "1")
    cache._db.execute("PRAGMA query_only = ON")
    cache.put(key, yes)
    cache._db.execute("PRAGMA query_only = OFF")
    cache.put(key, yes)
    assert cache.get(key) is None, "it rests"
    now[0] += 31.0
    cache.put(key, yes)
    assert cache.get(key) == yes
    cache.close()


def test_a_full_disk_loses_verdicts_and_nothing_else(tmp_path: Path) -> None:
    """In a process of its own, whose files may not grow."""
    command = [sys.executable, "-c", _FULL, str(tmp_path / "v.sqlite")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr
    assert ended.stderr.count("verdicts are not kept") == 1


def _body(first: int, count: int) -> dict[str, Any]:
    numbers = range(first, first + count)
    items = [{"id": str(i), "prompt": "", "response": RIGHT.format(i), "label": "1"} for i in numbers]
    return {"request_id": "r", "items": items}
