"""A verdict cache that fails while the service runs costs the verdicts it would have kept, and no reward."""

import asyncio
import logging
import os
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
        other.execute("INSERT INTO verdicts VALUES ('another', '', '', 'consistent', '', '')")
        other.commit()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    with path.open("r+b") as opened:
        opened.write(b"\xff" * path.stat().st_size)


def _deleted(path: Path, _: VerdictCache) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def _replaced(path: Path, _: VerdictCache) -> None:
    path.unlink()
    os.mkfifo(path)


def _read_only(_: Path, cache: VerdictCache) -> None:
    cache._db.execute("PRAGMA query_only = ON")


def _closed(_: Path, cache: VerdictCache) -> None:
    cache._db.close()


@pytest.mark.parametrize("spoil", [_drop_table, _another_schema, _corrupt, _deleted, _replaced, _read_only, _closed])
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


_SPOIL = {
    "verdict": "UPDATE verdicts SET verdict = 'inconsistent'",
    "no verdict": "UPDATE verdicts SET verdict = 'banana'",
    "words": "UPDATE verdicts SET raw = raw || '.'",
    "no text": "UPDATE verdicts SET raw = CAST(X'ff' AS TEXT)",
    "bytes": "UPDATE verdicts SET raw = X'ff'",
    "another's row": "UPDATE verdicts SET verdict = (SELECT verdict FROM verdicts WHERE verdict = 'inconsistent'), "
    "raw = (SELECT raw FROM verdicts WHERE verdict = 'inconsistent'), "
    "mac = (SELECT mac FROM verdicts WHERE verdict = 'inconsistent')",
    "no digest": "UPDATE verdicts SET mac = ''",
    "a digest without the key": "UPDATE verdicts SET verdict = 'inconsistent', mac = hex(randomblob(32))",
}


@pytest.mark.parametrize("spoil", _SPOIL.values(), ids=_SPOIL)
def test_a_verdict_that_was_changed_in_the_file_is_judged_anew_and_counted(
    spoil: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "v.sqlite"
    wrong = {"id": "w", "prompt": "", "response": RIGHT.format(0).replace("Response 1", "Response 2"), "label": "1"}

    async def run(count: int) -> tuple[list[tuple[float, str]], str]:
        async with in_process(create_app(RulesJudge(), VerdictCache(path))) as client:
            items = [*_body(0, count)["items"], wrong]
            answer = (await client.post("/v1/rewards", json={"request_id": "r", "items": items})).json()
            found = [(item["reward"], item["status"]) for item in answer["items"]]
            return found, (await client.get("/metrics")).text

    asyncio.run(run(3))
    with sqlite3.connect(path) as other:
        other.execute(f"{spoil} WHERE verdict = 'consistent'" if "SELECT" not in spoil else f"{spoil}")
    other.close()
    with caplog.at_level(logging.WARNING):
        items, metrics = asyncio.run(run(4))
    assert [reward for reward, _ in items] == [2.0] * 4 + [1.0]
    assert [status for _, status in items][:4] == ["scored"] * 4
    assert "raylign_verdict_cache_rejected_total 3.0" in metrics and "cache_faults_total 0.0" in metrics
    assert len([record for record in caplog.records if "verdict cache" in record.message]) == 1
    items, metrics = asyncio.run(run(4))
    assert {status for _, status in items[:4]} == {"cached"} and "rejected_total 0.0" in metrics


def test_verdicts_whose_key_is_gone_or_that_an_older_version_kept_are_judged_anew(tmp_path: Path) -> None:
    path, key, yes = tmp_path / "v.sqlite", CacheKey.of("judge", "1", "x", "y"), Judgement("consistent", "1")
    for spoil in (
        lambda: path.with_name("v.sqlite.key").unlink(),
        lambda: _run_sql(path, "ALTER TABLE verdicts DROP COLUMN mac"),
    ):
        cache = VerdictCache(path)
        cache.put(key, yes)
        assert cache.get(key) == yes
        cache.close()
        spoil()
        cache = VerdictCache(path)
        assert cache.get(key) is None
        cache.close()


def _run_sql(path: Path, text: str) -> None:
    with sqlite3.connect(path) as other:
        other.execute(text)
    other.close()


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
