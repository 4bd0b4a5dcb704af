"""The rules of alarms: each looks at the finished steps and says a sentence where something is wrong, or nothing.

A rule looks at many steps in a row, since each of them can look so by chance, and says the figure and what to try.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from orchestrator.config.sections import LOGPROB_TOLERANCE

ONE_STEP = 10
"""Steps in a row that a figure of every step must have been wrong."""
_EVALUATIONS = 2
"""Evaluations in a row, of the trained policy."""
_START = 5
"""Steps whose mean is what the run began with."""
_SAME = 0.98
"""Share of answers from which on they count as all the same."""
_BALANCED = 0.8
"""Largest share of one label among labels of which a policy that always answers it is no good."""
_SOLVED = 0.95
"""Share of right answers from which on it is no wonder that all earn the same, or are sure."""
_LEFT = 0.05
"""Share of the first steps' entropy below which the policy draws no more."""
_GROWN = 2.0
"""Times the first steps' mismatch."""
_UNREAD = 0.5
_EXPECTED = 20.0
"""Rollouts of a source that should have come before its silence says something."""
_READ = ("judge/unreadable_frac", "judge/unanswered_frac")
_FEW_TRIED = "lower optimizer.lr, raise algorithm.kl_coef or rollout.temperature, or go back to an earlier checkpoint"

_MOST = 1e300

Row = Mapping[str, Any]
"""Of ``metrics.jsonl``: a step's figures, None where one is not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the rules know of a run."""

    mismatch: float = LOGPROB_TOLERANCE["float32"]
    """Gap of log-probs that rounding explains, nats."""
    sources: Mapping[str, float] = field(default_factory=dict)
    """Prompts a step of each data source, in the mean; empty where there is but one."""

    @classmethod
    def of(cls, config: Mapping[str, Any], *, dtype: Any = None) -> "Watched":
        """Of a resolved configuration as ``config.json`` has it; what cannot be read there is not watched.

        Args:
            dtype: Number format that ``model.dtype`` came to, where that is known.
        """
        model, sync, data, rollout = (_section(config, name) for name in ("model", "sync", "data", "rollout"))
        known = [one for one in (dtype, model.get("dtype")) if one in ("float32", "bfloat16")]
        own = sync.get("tolerance")
        bound = own if isinstance(own, float) else LOGPROB_TOLERANCE[known[0] if known else "float32"]
        try:
            weights = {str(one["name"]): float(one["weight"]) for one in data.get("source") or ()}
            a_step = int(rollout.get("prompts_per_step", 0)) / sum(weights.values()) if weights else 0.0
        except (TypeError, KeyError, ValueError, ZeroDivisionError, OverflowError):
            return cls(mismatch=bound)
        return cls(mismatch=bound, sources={name: a_step * weight for name, weight in weights.items()})


def _one_answer(rows: Sequence[Row], watched: Watched) -> str | None:
    """The policy says the same whatever it is asked, though the labels differ."""
    answers, labels = _last(rows, "rollout/top_answer_frac"), _last(rows, "rollout/top_label_frac")
    if answers and min(answers) >= _SAME and labels and fmean(labels) <= _BALANCED:
        return (
            f"{min(answers):.0%} or more of the answers of the last {ONE_STEP} steps are the same one, of the labels "
            f"{fmean(labels):.0%} are: the policy does not look; {_FEW_TRIED}"
        )
    first = _last(rows, "eval/first_position_rate", _EVALUATIONS, trained=True)
    if first and (max(first) <= 1 - _SAME or min(first) >= _SAME):
        side = "first" if min(first) >= _SAME else "second"
        return (
            f"{abs(first[-1] - (side == 'second')):.0%} of the held-out verdicts are for the response shown {side}, at "
            f"{_EVALUATIONS} evaluations in a row: the policy does not look; {_FEW_TRIED}"
        )
    return None


def _equal_rewards(rows: Sequence[Row], watched: Watched) -> str | None:
    """Nothing is learned from rewards that do not differ, unless there is nothing left to learn."""
    if _is_solved(rows):
        return None
    equal, spread = _last(rows, "rollout/equal_frac"), _last(rows, "rollout/reward_spread")
    todo = "see what the reward pays for, take prompts of another difficulty, or raise rollout.temperature"
    if equal and min(equal) >= _SAME:
        return (
            f"the samples of {min(equal):.0%} or more of the prompts of the last {ONE_STEP} steps all earned the same, "
            f"so that nothing is learned; {todo}"
        )
    if spread and max(spread) == 0.0:
        mean = _last(rows, "reward/mean", 1)
        earned = f" {mean[0]:.3f}" if mean else ""
        return f"every rollout of the last {ONE_STEP} steps earned the same{earned}: their spread is 0; {todo}"
    return None


def _low_entropy(rows: Sequence[Row], watched: Watched) -> str | None:
    """Where the policy is sure of every token, all its samples are one, and it cannot find a better one."""
    sampled = [row for row in rows if "reward/mean" in row]
    began, now = _first(sampled, "policy/entropy"), _last(sampled, "policy/entropy")
    if not now or not began or max(now) > _LEFT * began or _is_solved(rows):
        return None
    return (
        f"entropy is {fmean(now):.2g} nats a token over the last {ONE_STEP} steps, it began at {began:.2g}: the policy "
        f"samples the same again and again; {_FEW_TRIED}"
    )


def _rising_mismatch(rows: Sequence[Row], watched: Watched) -> str | None:
    """Engine and trainer drift apart, beyond what rounding explains."""
    began, now = _first(rows, "mismatch/logprob_abs_mean"), _last(rows, "mismatch/logprob_abs_mean")
    if not now or began is None or min(now) <= max(watched.mismatch, _GROWN * began):
        return None
    return (
        f"engine and trainer differ by {fmean(now):.2g} nats a token over the last {ONE_STEP} steps, it began at "
        f"{began:.2g}, and rounding explains {watched.mismatch:g}; try rollout.engine = 'transformers', model.dtype = "
        "'float32' or algorithm.correction"
    )


def _silent_source(rows: Sequence[Row], watched: Watched) -> str | None:
    """A source of which nothing earns a reward, and a part of the reward that is never looked at."""
    sampled = [row for row in rows if "reward/mean" in row]
    for name, a_step in watched.sources.items():
        steps = max(ONE_STEP, math.ceil(_EXPECTED / a_step) if a_step else len(sampled) + 1)
        key = f"source/{name}/reward"
        if len(sampled) >= steps and all(_value(row, key) is None for row in sampled[-steps:]):
            return (
                f"no rollout of data.source {name!r} had a reward in the last {steps} steps; look at its rows with "
                "orchestrator.data show, and at reward_service.log"
            )
    for part in _parts(sampled[-1:]):
        if len(sampled) >= ONE_STEP and all(part in row and _value(row, part) is None for row in sampled[-ONE_STEP:]):
            return (
                f"{part} was looked at in no rollout of the last {ONE_STEP} steps, so that it counts nothing; see what "
                "it needs of an answer, or leave it out"
            )
    return None


def _unread_verdicts(rows: Sequence[Row], watched: Watched) -> str | None:
    """The judge's verdicts, or the policy's own, cannot be read."""
    for name in _READ:
        unread = _last(rows, name)
        if unread and min(unread) >= _UNREAD:
            what = "cannot be read" if name == _READ[0] else "has no answer"
            return (
                f"{min(unread):.0%} or more of what the judge was asked in the last {ONE_STEP} steps {what}; look at "
                "its answers in rollouts/, raise reward.judge_max_new_tokens, or ask another model"
            )
    unknown = _last(rows, "judge/unknown_frac")
    if unknown and min(unknown) >= _SAME:
        return (
            f"the judge could not tell about {min(unknown):.0%} or more of the rollouts of the last {ONE_STEP} steps; "
            "look at what they say in rollouts/: perhaps they reason in no words that it reads"
        )
    own = _last(rows, "eval/unreadable_frac", _EVALUATIONS, trained=True)
    if own and min(own) >= _UNREAD:
        return (
            f"{own[-1]:.0%} of the policy's held-out answers have no verdict that can be read, at {_EVALUATIONS} "
            "evaluations in a row; train with --algo sft first, or raise rollout.max_new_tokens"
        )
    return None


RULES: Mapping[str, Callable[[Sequence[Row], Watched], str | None]] = {
    "one_answer": _one_answer,
    "equal_rewards": _equal_rewards,
    "low_entropy": _low_entropy,
    "rising_mismatch": _rising_mismatch,
    "silent_source": _silent_source,
    "unread_verdicts": _unread_verdicts,
}
"""By the alarm's name; each says what is wrong after the last row, or None."""


def _last(rows: Sequence[Row], name: str, count: int = ONE_STEP, *, trained: bool = False) -> list[float]:
    """The last values of a figure; none where there are fewer, or it has none in a row that should have one.

    Args:
        trained: Only steps that may lack the figure, as evaluations do, and none before the first.
    """
    found: list[float] = []
    for row in reversed(rows):
        value = _value(row, name)
        if value is None and (name in row or not trained):
            break
        if value is not None and not (trained and row["step"] == 0):
            found.append(value)
        if len(found) == count:
            return found[::-1]
    return []


def _first(rows: Sequence[Row], name: str) -> float | None:
    """What the run began with; None before so many steps."""
    values: list[float] = []
    for row in rows:
        if (value := _value(row, name)) is not None:
            values.append(value)
        if len(values) == _START:
            return fmean(values)
    return None


def _is_solved(rows: Sequence[Row]) -> bool:
    right = _last(rows, "rollout/right_frac")
    return bool(right) and fmean(right) >= _SOLVED


def _parts(rows: Iterable[Row]) -> list[str]:
    return [name for row in rows for name in row if name.startswith("reward/") and name != "reward/mean"]


def _value(row: Row, name: str) -> float | None:
    """A finite number; of a row that somebody else may have written."""
    value = row.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if -_MOST < value < _MOST else None


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}
