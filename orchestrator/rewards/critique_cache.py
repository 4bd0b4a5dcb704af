"""What is known of responses already: critiques and rewards by content, in one SQLite file that runs can share."""

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

Status = Literal["ok", "cut", "too_long", "unfit", "not_finite"]
"""``cut``: the critique met the limit of tokens. ``too_long``: prompt and response leave no room for one. ``unfit``:
the model's processor cannot take an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CritiqueReward:
    """What a critique reward model says of one response."""

    reward: float | None
    """None unless ``status`` is ``ok``: nothing is made up."""
    critique: str
    num_tokens: int
    """Of the critique."""
    status: Status


def content_key(model: str, messages: object, media: Iterable[str], response: str) -> str:
    """SHA-256 of all that a reward depends on.

    Args:
        model: Fingerprint of weights, template, preprocessing, number format and the settings critiques are made with.
        media: Digests, in order.
    """
    content = json.dumps([model, messages, list(media), response], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


class CritiqueCache:
    """Rewards by content key; several processes may use one file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=30.0)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS rewards"
            " (key TEXT PRIMARY KEY, reward REAL, critique TEXT, num_tokens INTEGER, status TEXT)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def get(self, keys: Iterable[str]) -> dict[str, CritiqueReward]:
        """Those that are known."""
        found: dict[str, CritiqueReward] = {}
        for key in keys:
            row = self._db.execute(
                "SELECT reward, critique, num_tokens, status FROM rewards WHERE key = ?", (key,)
            ).fetchone()
            if row is not None:
                found[key] = _reward(*row)
        return found

    def put(self, rewards: Mapping[str, CritiqueReward]) -> None:
        """Keep rewards; what is there already stays."""
        with self._db:
            self._db.executemany(
                "INSERT OR IGNORE INTO rewards VALUES (?, ?, ?, ?, ?)",
                [(key, r.reward, r.critique, r.num_tokens, r.status) for key, r in rewards.items()],
            )


def checked(reward: float) -> tuple[float | None, Status]:
    """A model's reward, or that it is none."""
    # SQLite knows no -0.0: adding 0.0 makes it what the cache would give back.
    return (reward + 0.0, "ok") if math.isfinite(reward) else (None, "not_finite")


def _reward(reward: float | None, critique: str, num_tokens: int, status: Any) -> CritiqueReward:
    return CritiqueReward(reward=reward, critique=critique, num_tokens=num_tokens, status=status)
