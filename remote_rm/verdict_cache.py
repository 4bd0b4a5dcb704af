"""Verdicts that outlive the process: one SQLite file, safe for several processes.

Keyed by judge, rubric version and input, so a new rubric or judge never reads old verdicts. Only real verdicts are
kept: a judge that had nothing to say is asked again.
"""

import hashlib
import json
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from remote_rm.judges.protocol import Judgement

_BUSY_TIMEOUT_S = 5.0
_TABLE = """
CREATE TABLE IF NOT EXISTS verdicts (
    judge TEXT NOT NULL, rubric TEXT NOT NULL, input_sha256 TEXT NOT NULL, verdict TEXT NOT NULL, raw TEXT NOT NULL,
    PRIMARY KEY (judge, rubric, input_sha256)
) WITHOUT ROWID
"""


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

    def __init__(self, path: Path) -> None:
        """Open or create the file, and its folder.

        Raises:
            OSError, sqlite3.Error: it cannot be opened or is not a verdict cache.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        # In WAL mode this loses nothing when the process dies; only a power cut can cost the last verdicts.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(_TABLE)

    def get(self, key: CacheKey) -> Judgement | None:
        """The stored judgement, or None."""
        with self._lock:
            row = self._db.execute(
                "SELECT verdict, raw FROM verdicts WHERE judge = ? AND rubric = ? AND input_sha256 = ?",
                (key.judge, key.rubric_version, key.input_sha256),
            ).fetchone()
        return None if row is None else Judgement(verdict=row[0], raw=row[1])

    def put(self, key: CacheKey, judgement: Judgement) -> None:
        """Store a verdict; the first one stays when two processes judge the same input."""
        assert judgement.verdict != "unknown", "only real verdicts are cached"
        with self._lock:
            self._db.execute(
                "INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?)",
                (key.judge, key.rubric_version, key.input_sha256, judgement.verdict, judgement.raw),
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
