"""What reports are made of: questions answered from a run's figures alone, and the sentence above them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from orchestrator.reporting.charts import number
from orchestrator.reporting.run_record import Point, RunRecord
from orchestrator.run.alarm_rules import ONE_STEP, Watched
from orchestrator.run.alarms import replayed

CHANCE = 0.5
"""Accuracy of a coin on pairs."""
BESIDE_CHANCE = f"; chance is {CHANCE:.3f}"
"""What to hold such an accuracy against."""
_STANDARD_ERRORS = 2.0
_FEWEST_STEPS = 6


Answer = Literal["yes", "no", "unknown"]
ANSWER_WORDS = {"yes": "yes", "no": "no", "unknown": "not known"}


@dataclass(frozen=True, slots=True)
class Check:
    """One question with its answer and the figures behind it."""

    question: str
    answer: Answer
    detail: str


def measured(told: str, points: list[Point], *, on: str, beside: str) -> str:
    """A held-out figure as the sentence above a report.

    Args:
        told: What was measured, as a sentence begins.
        on: What it was measured on, with a blank before it; or nothing.
        beside: What to hold it against, put before the full stop.
    """
    if len(points) == 1:
        ((step, value),) = points
        return f"{told} {value:.3f}{on} at step {step}{beside}."
    return f"{told} {points[0][1]:.3f} → {points[-1][1]:.3f}{on}{beside}."


def share_rose(question: str, points: list[Point], observations: int | None, *, counted: str = "") -> Check:
    """Whether a share rose from the first to the last evaluation by more than its noise.

    Args:
        observations: How many independent ones each share is taken over; None where that is not known.
        counted: What they are, for whoever doubts the noise.
    """
    if len(points) < 2 or not observations:
        return Check(question, "unknown", "needs two evaluations and the number of held-out rows")
    (_, before), (_, after) = points[0], points[-1]
    noise = _STANDARD_ERRORS * math.sqrt((before * (1 - before) + after * (1 - after)) / observations)
    detail = f"{_change(points)}, {_STANDARD_ERRORS:g} standard errors are {noise:.3f}{counted}"
    return Check(question, "yes" if after - before > noise else "no", detail)


def mean_rose(question: str, points: list[Point], *, unit: str) -> Check:
    """Whether a mean rose from the first to the last evaluation; its noise is not known."""
    if len(points) < 2:
        return Check(question, "unknown", "needs two evaluations")
    detail = f"{_change(points)} {unit}; of the spread behind a mean nothing is kept, so no standard error is known"
    return Check(question, "yes" if points[-1][1] > points[0][1] else "no", detail)


def thirds_rose(question: str, points: list[Point]) -> Check:
    """Whether a figure of every step is greater in the run's last third than in its first, beyond the steps' noise."""
    values = [value for _, value in points]
    if len(values) < _FEWEST_STEPS:
        return Check(question, "unknown", f"needs {_FEWEST_STEPS} steps, there are {len(values)}")
    third = len(values) // 3
    early, late = values[:third], values[-third:]
    gain = fmean(late) - fmean(early)
    noise = _STANDARD_ERRORS * math.sqrt((variance(early) + variance(late)) / third)
    detail = (
        f"first third {fmean(early):.3f}, last third {fmean(late):.3f}: {gain:+.3f}, "
        f"{_STANDARD_ERRORS:g} standard errors are {noise:.3f}"
    )
    return Check(question, "yes" if gain > noise else "no", detail)


def every(question: str, points: list[Point], holds: Callable[[float], bool], bound: str) -> Check:
    """``yes`` when every point holds; names the first that does not."""
    if not points:
        return Check(question, "unknown", "not measured")
    failed = [(step, value) for step, value in points if not holds(value)]
    if failed:
        step, value = failed[0]
        more = f" and {len(failed) - 1} steps more" if len(failed) > 1 else ""
        return Check(question, "no", f"{number(value)} at step {step}{more}; wanted: {bound}")
    shown = number(points[-1][1])
    return Check(question, "yes", f"{shown} at step {points[-1][0]}; wanted: {bound}")


def never(question: str, counts: list[Point], *, told: str) -> Check:
    """``yes`` when all counts are 0; says how many there are in all, and at which step the first.

    Args:
        told: What it means where it happened.
    """
    if not counts:
        return Check(question, "unknown", "not measured")
    happened = [(step, count) for step, count in counts if count]
    if not happened:
        return Check(question, "yes", f"none in {len(counts)} steps")
    total = sum(count for _, count in happened)
    return Check(question, "no", f"{total:.0f} in {len(counts)} steps, the first at step {happened[0][0]}; {told}")


def metrics_were_finite(record: RunRecord) -> Check:
    """Every metric was a finite number."""
    return every(
        "Every metric was a finite number",
        record.series("guard/nonfinite_metrics"),
        lambda value: value == 0.0,
        "no value that is NaN or infinite",
    )


def number_format(record: RunRecord) -> str | None:
    """``float32`` or ``bfloat16``; None where the run left it to the machine and does not say what that came to."""
    dtype = record.manifest.get("dtype", record.setting("model", "dtype"))
    return dtype if dtype in ("float32", "bfloat16") else None


def no_alarm(record: RunRecord) -> Check:
    """What the console told while the run went on, by the same rules."""
    question, watched = "Nothing collapsed, fell silent or could not be read", _watched(record)
    alarms = replayed(record.rows, watched)
    if told := alarms.lines():
        return Check(question, "no", " · ".join(told))
    return Check(
        question, "yes" if record.last_step >= ONE_STEP else "unknown", f"no alarm in {record.last_step} steps"
    )


def mismatch_bound(record: RunRecord) -> float:
    """The run's own tolerance, else that of its number format, the stricter where that is not known; nats."""
    return _watched(record).mismatch


def _watched(record: RunRecord) -> Watched:
    return Watched.of(record.config, dtype=number_format(record))


def coverage_bound(record: RunRecord) -> float:
    """Least share of scored rollouts."""
    own = record.figure_of("reward", "min_coverage")
    return own if own is not None else 0.9


def _change(points: list[Point]) -> str:
    (first, before), (last, after) = points[0], points[-1]
    return f"{before:.3f} at step {first}, {after:.3f} at step {last}: {after - before:+.3f}"
