"""Verdicts survive processes, and are never served to another judge, rubric or input."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from remote_rm.judges.protocol import Judgement
from remote_rm.verdict_cache import CacheKey, VerdictCache

KEY = CacheKey.of("judge", "rubric-1", "tail", "answer")
YES = Judgement("consistent", "1")

WRITE_FOREVER = """
import sys
from pathlib import Path
from remote_rm.judges.protocol import Judgement
from remote_rm.verdict_cache import CacheKey, VerdictCache
cache = VerdictCache(Path(sys.argv[1]))
number = 0
while True:
    cache.put(CacheKey.of("judge", "rubric-1", sys.argv[2], str(number)), Judgement("consistent", str(number)))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""


def test_a_verdict_is_found_after_reopening_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "verdicts.sqlite"
    cache = VerdictCache(path)
    assert cache.get(KEY) is None
    cache.put(KEY, YES)
    cache.close()
    again = VerdictCache(path)
    assert again.get(KEY) == YES
    again.close()


@pytest.mark.parametrize(
    "other",
    [
        CacheKey.of("other judge", "rubric-1", "tail", "answer"),
        CacheKey.of("judge", "rubric-2", "tail", "answer"),
        CacheKey.of("judge", "rubric-1", "other tail", "answer"),
        CacheKey.of("judge", "rubric-1", "tail", "other answer"),
        CacheKey.of("judge", "rubric-1", "tailanswer", ""),
    ],
)
def test_another_judge_rubric_or_input_misses(tmp_path: Path, other: CacheKey) -> None:
    cache = VerdictCache(tmp_path / "v.sqlite")
    cache.put(KEY, YES)
    assert cache.get(other) is None
    cache.close()


def test_the_first_verdict_stays(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path / "v.sqlite")
    cache.put(KEY, YES)
    cache.put(KEY, Judgement("inconsistent", "0"))
    assert cache.get(KEY) == YES
    cache.close()


def test_unknown_is_never_stored(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path / "v.sqlite")
    with pytest.raises(AssertionError, match="only real verdicts"):
        cache.put(KEY, Judgement("unknown", "10"))
    cache.close()


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    path.write_text("not a database, and long enough to be read as a header of one")
    with pytest.raises(ValueError, match=r"v\.sqlite' cannot serve as a verdict cache: file is not a database"):
        VerdictCache(path)
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE verdicts (question TEXT, answer TEXT)")
    other.close()
    with pytest.raises(ValueError, match=r"cannot serve as a verdict cache: no such column: verdict"):
        VerdictCache(path)


def test_a_cache_that_somebody_else_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote_rm.verdict_cache._BUSY_TIMEOUT_S", 0.05)
    VerdictCache(tmp_path / "v.sqlite").close()
    other = sqlite3.connect(tmp_path / "v.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ValueError, match="database is locked"):
        VerdictCache(tmp_path / "v.sqlite")
    other.close()


def test_two_writers_killed_at_any_moment_lose_nothing_they_reported(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(path), name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    reported = {}
    for name, writer in zip("ab", writers, strict=True):
        assert writer.stdout is not None
        for _ in range(50):
            reported[name] = int(writer.stdout.readline())
    for writer in writers:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    cache = VerdictCache(path)
    for name, last in reported.items():
        for number in range(last + 1):
            found = cache.get(CacheKey.of("judge", "rubric-1", name, str(number)))
            assert found == Judgement("consistent", str(number))
    cache.close()
