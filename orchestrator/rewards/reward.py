"""What is asked about a completion, and what it earns: a value with a status. What a step's rewards come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

RewardStatus = Literal["scored", "cached", "unknown", "failed"]
_SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardItem:
    """What the service is asked about one completion."""

    uid: str
    sample_index: int
    prompt: str
    response: str
    label: str | None
    media: tuple[str, ...]
    """SHA-256 of each image."""

    @property
    def id(self) -> str:
        """The item's id on the wire."""
        return f"{self.uid}/{self.sample_index}"

    def to_json(self) -> dict[str, Any]:
        """The item as the service's schema has it."""
        return {
            "id": self.id,
            "prompt": self.prompt,
            "response": self.response,
            "label": self.label,
            "media": [{"sha256": digest} for digest in self.media],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """A reward is a value with a status; ``failed`` carries no value and is masked out of the advantage."""

    value: float | None
    format: float | None
    accuracy: float | None
    consistency: float | None
    status: RewardStatus
    detail: str | None = None
    critique: float | None = None
    """What the critique reward model gave, before its weight; None where it is not asked."""


def failed_reward(why: str) -> Reward:
    """No reward, and why, in one bounded line whoever's words it is made of."""
    return Reward(value=None, format=None, accuracy=None, consistency=None, status="failed", detail=one_line(why))


def one_line(words: str) -> str:
    """Somebody else's words, fit for a log and a terminal."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(words.split()))
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def reward_metrics(rewards: Sequence[Reward]) -> dict[str, float]:
    """Means over the rewards that exist, and what share of them does."""
    scored = [r for r in rewards if r.value is not None]
    total = len(rewards)
    critiques = [r.critique for r in scored if r.critique is not None]
    return {
        "reward/mean": _mean([r.value for r in scored]),
        **({"reward/critique": _mean(critiques)} if critiques else {}),
        "reward/format": _mean([r.format for r in scored]),
        "reward/accuracy": _mean([r.accuracy for r in scored]),
        "reward/consistency": _mean([r.consistency for r in scored]),
        "judge/coverage": sum(r.status in ("scored", "cached") for r in rewards) / total,
        "judge/cached_frac": sum(r.status == "cached" for r in rewards) / total,
        "judge/unknown_frac": sum(r.status == "unknown" for r in rewards) / total,
    }


def _mean(values: Sequence[float | None]) -> float:
    present = [v for v in values if v is not None]
    return float(np.mean(present)) if present else float("nan")
