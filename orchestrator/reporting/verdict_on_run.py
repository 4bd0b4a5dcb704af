"""Is it learning, and is it right? The two questions of a run, answered from its figures alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from orchestrator.reporting.charts import number
from orchestrator.reporting.run_record import Point, RunRecord

CHANCE = 0.5
"""Accuracy of a coin on pairs."""

_BLIND_MARGIN = 0.06
"""How far from chance a judge may be that is shown the wrong images."""
_SIDE_MARGIN = 0.1
"""How far from one half its choice of the response shown first may be."""
_MISMATCH_BOUND = {"float32": 1e-4, "bfloat16": 5e-2}
_STANDARD_ERRORS = 2.0
_FEWEST_STEPS = 6

Answer = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One question with its answer and the figures behind it."""

    question: str
    answer: Answer
    detail: str


def status(record: RunRecord) -> str:
    """How far the run is, in a sentence."""
    steps = record.setting("run", "steps")
    if not record.rows:
        return "No step is finished yet."
    if not isinstance(steps, int):
        return f"{record.last_step} steps; the configuration is missing, so the planned number is not known."
    if record.last_step >= steps:
        return f"Finished: {steps} of {steps} steps."
    return f"Unfinished: {record.last_step} of {steps} steps. The same command continues it."


def learning_checks(record: RunRecord) -> list[Check]:
    """Is it learning? What should have risen, and whether it did beyond noise."""
    return [_accuracy_rose(record), _reward_rose(record)]


def soundness_checks(record: RunRecord) -> list[Check]:
    """Is it right? What must hold for the figures above to mean what they say."""
    most_mismatch, least_coverage = mismatch_bound(record), coverage_bound(record)
    last_side = record.series("eval/first_position_rate")[-1:]
    return [
        _judges_by_looking(record),
        _every(
            "It leans to neither side",
            last_side,
            lambda value: abs(value - CHANCE) <= _SIDE_MARGIN,
            f"share of the response shown first within {_SIDE_MARGIN:g} of {CHANCE:g}",
        ),
        _every(
            "Engine and trainer agree on every step",
            record.series("mismatch/logprob_abs_mean"),
            lambda value: value <= most_mismatch,
            f"mean gap of log-probs at most {most_mismatch:g} nats",
        ),
        _every("Every weight sync was verified", record.series("sync/verified"), lambda value: value == 1.0, "1"),
        _every(
            "Enough rollouts were scored on every step",
            record.series("judge/coverage"),
            lambda value: value >= least_coverage,
            f"coverage at least {least_coverage:g}",
        ),
        _every(
            "Every metric was a finite number",
            record.series("guard/nonfinite_metrics"),
            lambda value: value == 0.0,
            "no value that is NaN or infinite",
        ),
    ]


def headline(record: RunRecord) -> str:
    """The run in one sentence."""
    accuracy = record.series("eval/accuracy")
    if not accuracy:
        return "No held-out accuracy has been measured."
    pairs = record.manifest.get("num_held_out")
    on = f" on {pairs} held-out pairs" if isinstance(pairs, int) else ""
    if len(accuracy) == 1:
        return f"Accuracy {accuracy[0][1]:.3f}{on} at step {accuracy[0][0]}; chance is {CHANCE:.3f}."
    return f"Accuracy {accuracy[0][1]:.3f} → {accuracy[-1][1]:.3f}{on}; chance is {CHANCE:.3f}."


def _accuracy_rose(record: RunRecord) -> Check:
    question = "Held-out accuracy rose"
    accuracy, pairs = record.series("eval/accuracy"), record.manifest.get("num_held_out")
    if len(accuracy) < 2 or not isinstance(pairs, int) or pairs < 1:
        return Check(question, "unknown", "needs two evaluations and the number of pairs")
    (first_step, before), (last_step, after) = accuracy[0], accuracy[-1]
    noise = _STANDARD_ERRORS * math.sqrt((before * (1 - before) + after * (1 - after)) / pairs)
    detail = (
        f"{before:.3f} at step {first_step}, {after:.3f} at step {last_step}: {after - before:+.3f}, "
        f"{_STANDARD_ERRORS:g} standard errors are {noise:.3f}"
    )
    return Check(question, "yes" if after - before > noise else "no", detail)


def _judges_by_looking(record: RunRecord) -> Check:
    question = "It judges by looking: with shuffled images it is near chance"
    accuracy = dict(record.series("eval/accuracy"))
    control = [point for point in record.series("eval/accuracy_shuffled_images") if point[0] in accuracy][-1:]
    # Whoever guesses is near chance with any images, so the control says nothing yet.
    if control and accuracy[control[0][0]] <= CHANCE + _BLIND_MARGIN:
        step = control[0][0]
        return Check(
            question, "unknown", f"with its own images it is near chance too: {accuracy[step]:.3f} at step {step}"
        )
    bound = f"accuracy within {_BLIND_MARGIN:g} of {CHANCE:g}"
    return _every(question, control, lambda value: abs(value - CHANCE) <= _BLIND_MARGIN, bound)


def _reward_rose(record: RunRecord) -> Check:
    question = "Mean reward rose"
    values = [value for _, value in record.series("reward/mean")]
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


def _every(question: str, points: list[Point], holds: Callable[[float], bool], bound: str) -> Check:
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


def mismatch_bound(record: RunRecord) -> float:
    """The run's own tolerance, else that of its number format; nats."""
    own = record.setting("sync", "tolerance")
    if isinstance(own, float):
        return own
    # A manifest that names the dtype knows what "auto" came to; else the strict bound.
    dtype = record.manifest.get("dtype", record.setting("model", "dtype"))
    return _MISMATCH_BOUND["bfloat16" if dtype == "bfloat16" else "float32"]


def coverage_bound(record: RunRecord) -> float:
    """Least share of scored rollouts."""
    own = record.setting("reward", "min_coverage")
    return own if isinstance(own, float) else 0.9
