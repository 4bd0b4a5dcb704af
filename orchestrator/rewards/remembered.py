"""Answers of a judge at an endpoint are kept in the run folder: steps that are done again earn the same.

Somebody else's model need not answer twice alike, and its answers cost.
"""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from orchestrator.rewards.asking import Answer, Question, Writer


class RememberedWriter:
    """Asks only what has no answer yet; failures are not kept."""

    def __init__(self, writer: Writer, path: Path, *, judge: str) -> None:
        """
        Args:
            judge: Who answers, and with which settings: another one answers anew.
        """
        self._writer, self._judge = writer, judge
        # Whoever opens it need not be the thread that asks; two never ask at a time.
        self._db = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def write(self, questions: Sequence[Question]) -> list[Answer]:
        """See ``Writer``."""
        keys = [self._key(question) for question in questions]
        known = {key: text for key in dict.fromkeys(keys) if (text := self._get(key)) is not None}
        unknown = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
        fresh = dict(zip(unknown, self._writer.write(list(unknown.values())), strict=True)) if unknown else {}
        with self._db:
            rows = [(key, answer.text) for key, answer in fresh.items() if answer.text is not None]
            self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
        return [Answer(known[key]) if key in known else fresh[key] for key in keys]

    def _get(self, key: str) -> str | None:
        row = self._db.execute("SELECT text FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def _key(self, question: Question) -> str:
        content: list[object] = [self._judge, [one.sha256 for one in question.media], question.text]
        drawn = [question.before, question.temperature, question.seed]
        # Answers that were kept before questions could differ by these stay known.
        content += drawn if any(drawn) else []
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
