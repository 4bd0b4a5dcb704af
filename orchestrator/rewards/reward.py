"""What is asked about a completion, and what it earns: a value with a status, made of parts that go by name.

What a step's rewards come to, and when they say too little to learn from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from algorithms.figures import Figure
from algorithms.records import MediaRef
from orchestrator.errors import GuardStop
from workers.types import FinishReason

RewardStatus = Literal["scored", "cached", "unknown", "failed"]
_SHOWN = 300
_TELLING = 2

FIGURES = (
    Figure("reward/mean", "mean reward of the scored rollouts", "Reward and its parts"),
    Figure(
        "reward/*",
        "mean of each part of the reward over the scored rollouts where it was looked at, by the part's name, before "
        "any weight: `reward/format`, `reward/accuracy` and `reward/consistency` by the rules of our own service, or "
        "each of `reward.functions`; `reward/critique` of the critique reward model",
        "Reward and its parts",
    ),
    Figure(
        "judge/coverage",
        "share of the rollouts with a whole reward: not those the judge gave no verdict on, not those that failed",
        "Judge",
    ),
    Figure("judge/cached_frac", "share of the rollouts whose verdict came from the cache", "Judge", "cached"),
    Figure(
        "judge/unknown_frac",
        "share of the rollouts about which the judge could not tell",
        "Judge",
        "no verdict",
    ),
)
"""A name that ends in ``*`` stands for all that begin so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardItem:
    """What the service is asked about one completion."""

    uid: str
    sample_index: int
    prompt: str
    response: str
    label: str | None
    media: tuple[MediaRef, ...]
    group: str | None = None
    """Name that the samples of a prompt share; None is a sample by itself."""
    length: int | None = None
    """Tokens of the completion."""
    finish_reason: FinishReason | None = None
    """Why the engine ended it."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """That the prompt is from, without its pictures."""
    tells_paths: bool = False
    """Whether whoever is asked is on this machine, and so is told the files of the images."""

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
            "media": [{"sha256": m.sha256, **({"path": m.path} if self.tells_paths else {})} for m in self.media],
            "group": self.group,
            "length": self.length,
            "finish_reason": self.finish_reason,
            "row": dict(self.row),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """A reward is a value with a status; ``failed`` carries no value and is masked out of the advantage."""

    value: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    """What it is made of, by name, before any weight; None where a part was not looked at or could not be had."""
    status: RewardStatus
    detail: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    """What each part counts, where the value is their weighted sum; empty where it is another formula."""
    is_final: bool = False
    """Of a failed one: asking again would end in the same."""

    @property
    def is_settled(self) -> bool:
        """Whether nobody need be asked again."""
        return self.status in ("scored", "cached") or self.is_final


def failed_reward(why: str, *, is_final: bool = False, parts: Mapping[str, float | None] | None = None) -> Reward:
    """No reward, and why, in one bounded line whoever's words it is made of; with the parts that are known."""
    return Reward(value=None, parts=parts or {}, status="failed", detail=one_line(why), is_final=is_final)


def with_parts(reward: Reward, parts: Mapping[str, float], weights: Mapping[str, float]) -> Reward:
    """A reward, which has a value, with the weighted sum of further parts added to it."""
    assert reward.value is not None
    # A value that is no weighted sum of its parts does not become one by a part more.
    is_sum = bool(reward.weights) or (reward.value == 0.0 and not reward.parts)
    return replace(
        reward,
        value=reward.value + sum(weights[name] * value for name, value in parts.items()),
        parts={**reward.parts, **parts},
        weights={**reward.weights, **weights} if is_sum else {},
    )


def one_line(words: str) -> str:
    """Somebody else's words, fit for a log and a terminal."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(words.split()))
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def reward_metrics(rewards: Sequence[Reward]) -> dict[str, float]:
    """Means over the rewards that exist, and what share of them does."""
    scored = [r for r in rewards if r.value is not None]
    total = len(rewards)
    names = dict.fromkeys(name for r in rewards for name in r.parts)
    return {
        "reward/mean": _mean([r.value for r in scored]),
        **{f"reward/{name}": _mean([r.parts.get(name) for r in scored]) for name in names},
        "judge/coverage": sum(r.status in ("scored", "cached") for r in rewards) / total,
        "judge/cached_frac": sum(r.status == "cached" for r in rewards) / total,
        "judge/unknown_frac": sum(r.status == "unknown" for r in rewards) / total,
    }


def check_coverage(rewards: Sequence[Reward], *, minimum: float) -> None:
    """Stop when too few rollouts could be scored to learn from, or none.

    Raises:
        GuardStop: with the coverage, the bound and one service's reason.
    """
    failed = [r for r in rewards if r.value is None]
    coverage = 1.0 - len(failed) / len(rewards)
    if coverage < minimum or len(failed) == len(rewards):
        told = f"is below reward.min_coverage = {minimum:g}" if coverage < minimum else "leaves nothing to learn from"
        raise GuardStop(
            f"reward coverage {coverage:.3f} {told}: "
            f"{len(failed)} of {len(rewards)} rollouts were not scored, first reason: {failed[0].detail}"
        )


def check_unknown(rewards: Sequence[Reward], *, most: float | None) -> None:
    """Stop when the judge's answers cannot be read: whoever is right is then paid without anybody having looked.

    Verdicts from the cache say nothing of how the judge is now, nor does a single answer.

    Args:
        most: Largest accepted share of the samples the judge was asked about; None accepts all.
    Raises:
        GuardStop: with the share, the bound and one answer.
    """
    unknown = [r for r in rewards if r.status == "unknown"]
    asked = len(unknown) + sum(r.status == "scored" and _is_whole(r) for r in rewards)
    if most is None or asked < _TELLING or len(unknown) <= most * asked:
        return
    raise GuardStop(
        f"the judge gave no verdict on {len(unknown)} of the {asked} samples it was asked about, a share of "
        f"{len(unknown) / asked:.3f} above reward.max_unknown = {most:g}; for example: {unknown[0].detail}"
    )


def _is_whole(reward: Reward) -> bool:
    """Whether every part was looked at: where the judge was not asked, one was not."""
    return bool(reward.parts) and None not in reward.parts.values()


def _mean(values: Sequence[float | None]) -> float:
    present = [v for v in values if v is not None]
    return float(np.mean(present)) if present else float("nan")
