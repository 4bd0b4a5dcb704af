"""What is asked about a completion, and what it earns: a value with a status."""

from dataclasses import dataclass
from typing import Any, Literal

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
