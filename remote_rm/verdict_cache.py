"""Verdicts that outlive the process: one SQLite file, safe for several processes, and beside it the key of its rows.

Keyed by judge, rubric version and input, so a new rubric or judge never reads old verdicts. Only real verdicts are
kept: a judge that had nothing to say is asked again. A file that cannot serve is refused at the start; one that fails
later is left alone for a while, then opened anew, and costs the verdicts that it would have kept, never one that the
judge has given.

Every row is authenticated by a key that only its owner reads (``FILE.key``, mode 0600): a row that was damaged, or
written by somebody who has the file but not the key, is dropped and its verdict asked for again. Nothing protects from
who can read the key, or from a row that is taken away.
"""

import hashlib
import hmac
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from remote_rm import own_files
from remote_rm.judges.protocol import Judgement

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_BUSY_TIMEOUT_S = 5.0
_REST_S = 30.0
_TABLE = """
CREATE TABLE IF NOT EXISTS verdicts (
    judge TEXT NOT NULL, rubric TEXT NOT NULL, input_sha256 TEXT NOT NULL, verdict TEXT NOT NULL, raw TEXT NOT NULL,
    mac TEXT NOT NULL, PRIMARY KEY (judge, rubric, input_sha256)
) WITHOUT ROWID
"""
_COLUMNS = ("judge", "rubric", "input_sha256", "verdict", "raw")
_NAMED = "judge = ? AND rubric = ? AND input_sha256 = ?"
_READ = f"SELECT verdict, raw, mac FROM verdicts WHERE {_NAMED}"
_WRITE = f"INSERT OR IGNORE INTO verdicts ({', '.join(_COLUMNS)}, mac) VALUES (?, ?, ?, ?, ?, ?)"
_DROP = f"DELETE FROM verdicts WHERE {_NAMED}"
_MOST_REMEMBERED = 1 << 16
_SIDE_FILES = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Names one judgement."""

    judge: str
    rubric_version: str
    input_sha256: str

    @classmethod
    def of(cls, judge: str, rubric_version: str, tail: str, answer: str) -> "CacheKey":
        """Key of one pair of texts; the two are kept apart, whatever characters they hold."""
        return cls(judge, rubric_version, hashlib.sha256(json.dumps([tail, answer]).encode()).hexdigest())

    @property
    def columns(self) -> tuple[str, str, str]:
        """As they are stored."""
        return self.judge, self.rubric_version, self.input_sha256


class VerdictCache:
    """Reads and writes are whole or absent after a kill, and what was written is there for every process."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Open or create the file, its key, and its folder.

        Raises:
            ValueError: it cannot be opened, cannot be written, is not a verdict cache, or is not ours.
        """
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._remembered: dict[CacheKey, Judgement] = {}
        self._rests_until: float | None = None
        self._has_warned = {"faults": False, "rejected": False}
        self.on_fault: Callable[[], None] = lambda: None
        """Called at every fault, to count it."""
        self.on_rejected: Callable[[int], None] = lambda count: None
        """Called with the number of rows that were dropped because they are not what was written."""
        try:
            self._open()
        except (OSError, ValueError) as error:
            raise ValueError(f"--cache {str(path)!r} cannot be opened: {error}") from error
        except sqlite3.Error as error:
            raise ValueError(f"--cache {str(path)!r} cannot serve as a verdict cache: {error}") from error

    def remembered(self, key: CacheKey) -> Judgement | None:
        """One that was read before, without a look at the file; any thread may ask."""
        return self._remembered.get(key)

    def get(self, key: CacheKey) -> Judgement | None:
        """The stored judgement; None also where the file is at fault."""
        return self.get_many([key]).get(key)

    def put(self, key: CacheKey, judgement: Judgement) -> None:
        """Store a verdict, or lose it; the first one stays when two processes judge the same input."""
        self.put_many({key: judgement})

    def get_many(self, keys: Iterable[CacheKey]) -> dict[CacheKey, Judgement]:
        """Those that are stored; fewer or none where the file is at fault."""
        found: dict[CacheKey, Judgement] = {}

        def read() -> None:
            rejected = []
            for key in keys:
                row = self._db.execute(_READ, key.columns).fetchone()
                if row is None:
                    continue
                if self._is_ours(key, row):
                    found[key] = Judgement(verdict=row[0], raw=row[1])
                else:
                    rejected.append(key.columns)
            self._reject(rejected)

        self._cautiously(read)
        self._remember(found)
        return found

    def put_many(self, judgements: Mapping[CacheKey, Judgement]) -> None:
        """Store verdicts in one transaction, or lose them."""
        assert all(one.verdict != "unknown" for one in judgements.values()), "only real verdicts are cached"
        rows = [
            (*key.columns, one.verdict, one.raw, self._mac(key, one.verdict, one.raw))
            for key, one in judgements.items()
        ]

        def write() -> None:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(_WRITE, rows)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

        self._cautiously(write)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _open(self) -> None:
        found = own_files.prepare(self._path)
        for suffix in _SIDE_FILES:
            own_files.refuse_planted(self._path.with_name(self._path.name + suffix))
        self._key = own_files.random_key(self._path.with_name(f"{self._path.name}.key"))
        self._identity = found.st_dev, found.st_ino
        self._db = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        # A text that is none is a row that is not ours, and no fault of the file.
        self._db.text_factory = lambda data: data.decode(errors="replace")
        try:
            self._prepare()
        except sqlite3.Error:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        # In WAL mode this loses nothing when the process dies; only a power cut can cost the last verdicts.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(_TABLE)
        # A table of the same name may be somebody else's, and a file may be readable only.
        self._db.execute("BEGIN IMMEDIATE")
        if tuple(row[1] for row in self._db.execute("PRAGMA table_info(verdicts)")) == _COLUMNS:
            # Of a version that did not authenticate them: nobody can say any more who wrote them.
            count = self._db.execute("DELETE FROM verdicts").rowcount
            self._db.execute("ALTER TABLE verdicts ADD COLUMN mac TEXT NOT NULL DEFAULT ''")
            _log.warning("the verdict cache %s is of an older version; %d verdicts are asked again", self._path, count)
            self._db.execute("COMMIT")
            self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(_READ, ("", "", "")).fetchone()
        self._db.execute(_WRITE, ("", "", "", "consistent", "", ""))
        self._db.execute("ROLLBACK")

    def _mac(self, key: CacheKey, verdict: str, raw: str) -> str:
        return hmac.digest(self._key, json.dumps([*key.columns, verdict, raw]).encode(), "sha256").hex()

    def _is_ours(self, key: CacheKey, row: Sequence[object]) -> bool:
        verdict, raw, mac = row
        if not (isinstance(verdict, str) and isinstance(raw, str) and isinstance(mac, str)):
            return False
        return mac.isascii() and hmac.compare_digest(self._mac(key, verdict, raw), mac)

    def _remember(self, found: dict[CacheKey, Judgement]) -> None:
        with self._lock:
            self._remembered.update(found)
            while len(self._remembered) > _MOST_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]  # the oldest

    def _reject(self, rows: list[tuple[object, ...]]) -> None:
        if not rows:
            return
        self.on_rejected(len(rows))
        self._warn("rejected", "holds rows that are not as they were written; they are asked for again", len(rows))
        self._db.executemany(_DROP, rows)

    def _cautiously(self, act: Callable[[], _T]) -> _T | None:
        """Do it, unless the file has failed a moment ago: each wait for a locked one is a judgement's time."""
        with self._lock:
            if self._rests_until is not None and self._clock() < self._rests_until:
                return None
            try:
                if self._rests_until is not None:
                    self._db.close()
                    self._open()
                    self._rests_until = None
                found = os.stat(self._path, follow_symlinks=False)
                if (found.st_dev, found.st_ino) != self._identity:
                    raise OSError("another file has taken its place")
                return act()
            except (sqlite3.Error, OSError, ValueError) as error:
                self._rests_until = self._clock() + _REST_S
                self.on_fault()
                self._warn("faults", "fails, and verdicts are not kept", error)
        return None

    def _warn(self, what: str, words: str, detail: object) -> None:
        if not self._has_warned[what]:
            self._has_warned[what] = True
            _log.warning("the verdict cache %s %s: %s", self._path, words, detail)
