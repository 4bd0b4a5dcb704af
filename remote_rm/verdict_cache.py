"""Verdicts that outlive the process: one SQLite file, safe for several processes.

Keyed by judge, rubric version and input, so a new rubric or judge never reads old verdicts. Only real verdicts are
kept: a judge that had nothing to say is asked again. A file that cannot serve is refused at the start; one that fails
later is left alone for a while, and costs the verdicts that it would have kept, never one that the judge has given.
"""

import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from remote_rm.judges.protocol import Judgement

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_BUSY_TIMEOUT_S = 5.0
_REST_S = 30.0
_TABLE = """
CREATE TABLE IF NOT EXISTS verdicts (
    judge TEXT NOT NULL, rubric TEXT NOT NULL, input_sha256 TEXT NOT NULL, verdict TEXT NOT NULL, raw TEXT NOT NULL,
    PRIMARY KEY (judge, rubric, input_sha256)
) WITHOUT ROWID
"""


_READ = "SELECT verdict, raw FROM verdicts WHERE judge = ? AND rubric = ? AND input_sha256 = ?"
_WRITE = "INSERT OR IGNORE INTO verdicts (judge, rubric, input_sha256, verdict, raw) VALUES (?, ?, ?, ?, ?)"


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


class VerdictCache:
    """Reads and writes are single statements; SQLite's log makes each one whole or absent after a kill."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Open or create the file, and its folder.

        Raises:
            ValueError: it cannot be opened, cannot be written, or is not a verdict cache.
        """
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._rests_until = -float("inf")
        self._was_faulty = False
        self.on_fault: Callable[[], None] = lambda: None
        """Called at every fault, to count it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise ValueError(f"--cache {str(path)!r} cannot be opened: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise ValueError(f"--cache {str(path)!r} cannot serve as a verdict cache: {error}") from error

    def get(self, key: CacheKey) -> Judgement | None:
        """The stored judgement; None also where the file is at fault."""

        def read() -> Judgement | None:
            row = self._db.execute(_READ, (key.judge, key.rubric_version, key.input_sha256)).fetchone()
            if row is None:
                return None
            if row[0] not in ("consistent", "inconsistent") or not isinstance(row[1], str):
                raise sqlite3.DataError(f"it holds the verdict {row[0]!r}")
            return Judgement(verdict=row[0], raw=row[1])

        return self._cautiously(read)

    def put(self, key: CacheKey, judgement: Judgement) -> None:
        """Store a verdict, or lose it; the first one stays when two processes judge the same input."""
        assert judgement.verdict != "unknown", "only real verdicts are cached"
        row = (key.judge, key.rubric_version, key.input_sha256, judgement.verdict, judgement.raw)
        self._cautiously(lambda: self._db.execute(_WRITE, row))

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        # In WAL mode this loses nothing when the process dies; only a power cut can cost the last verdicts.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(_TABLE)
        # A table of the same name may be somebody else's, and a file may be readable only.
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(_READ, ("", "", "")).fetchone()
        self._db.execute(_WRITE, ("", "", "", "consistent", ""))
        self._db.execute("ROLLBACK")

    def _cautiously(self, act: Callable[[], _T]) -> _T | None:
        """Do it, unless the file has failed a moment ago: each wait for a locked one is a judgement's time."""
        with self._lock:
            if self._clock() < self._rests_until:
                return None
            try:
                return act()
            except (sqlite3.Error, UnicodeError) as error:
                self._rests_until = self._clock() + _REST_S
                self.on_fault()
                if not self._was_faulty:
                    self._was_faulty = True
                    _log.warning("the verdict cache %s fails, and verdicts are not kept: %s", self._path, error)
        return None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
