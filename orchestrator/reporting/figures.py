"""Which curves a report shows, and over what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.metrics import MEMORY_PREFIX
from orchestrator.reporting.charts import Chart, line_chart, share_bar, stacked_chart
from orchestrator.reporting.markup import Html, element
from orchestrator.reporting.run_record import Point, RunRecord
from orchestrator.reporting.verdict_on_run import CHANCE, coverage_bound, mismatch_bound

_PHASES = ("rollout", "reward", "train", "sync")
_SHARE = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    title: str
    names: Mapping[str, str]
    """Metric by label."""
    bound: tuple[str, Callable[[RunRecord], float]] | None = None
    y_range: tuple[float, float] | None = None
    prefer_log: bool = False
    note: str = ""


_CURVES = (
    _Curve(
        title="Held-out accuracy",
        names={
            "accuracy": "eval/accuracy",
            "images shuffled": "eval/accuracy_shuffled_images",
            "chose the first": "eval/first_position_rate",
        },
        bound=("chance", lambda record: CHANCE),
        y_range=_SHARE,
        note="With the images shuffled among the pairs, a judge that looks falls to chance.",
    ),
    _Curve(
        title="Reward and its parts",
        names={part: f"reward/{part}" for part in ("mean", "format", "accuracy", "consistency")},
    ),
    _Curve(
        title="Engine against trainer, nats",
        names={"mean": "mismatch/logprob_abs_mean", "largest": "mismatch/logprob_abs_max"},
        bound=("bound of the mean", mismatch_bound),
        prefer_log=True,
        note="Gap between the log-probs of the engine that sampled and those of the trainer.",
    ),
    _Curve(
        title="Judge",
        names={"coverage": "judge/coverage", "cached": "judge/cached_frac", "no verdict": "judge/unknown_frac"},
        bound=("least coverage", coverage_bound),
        y_range=_SHARE,
    ),
    _Curve(title="Gradient norm before clipping", names={"norm": "policy/grad_norm"}),
    _Curve(title="Policy loss", names={"loss": "policy/loss"}),
    _Curve(title="Entropy, nats a token", names={"entropy": "policy/entropy"}),
    _Curve(
        title="Guards: share of tokens",
        names={
            "Pre-CLIP": "policy/preclip_frac",
            "PPO clip": "policy/clip_frac",
            "filtered, positive": "adv/filtered_pos_frac",
            "filtered, negative": "adv/filtered_neg_frac",
        },
    ),
    _Curve(title="KL to the reference, nats", names={"KL": "kl/ref"}),
    _Curve(title="Completion length, tokens", names={"mean": "length/mean"}),
    _Curve(title="Share of cut completions", names={"cut": "length/truncated_frac"}, y_range=_SHARE),
    _Curve(title="Rollout tokens a second", names={"rate": "throughput/rollout_tokens_per_s"}),
)


def curves(record: RunRecord) -> Html:
    """Every figure that the run has data for."""
    memory = {name.removeprefix(MEMORY_PREFIX): record.series(name) for name in record.names(MEMORY_PREFIX)}
    figures = [line_chart(_chart(curve, record)) for curve in _CURVES]
    figures.append(line_chart(Chart(title="Memory, GiB", series=memory)))
    figures.append(stacked_chart(Chart(title="Seconds of a step", series=phase_seconds(record))))
    return element("div", {"class": "curves"}, *figures)


def phase_seconds(record: RunRecord) -> dict[str, list[Point]]:
    """Seconds of every phase by step; ``other`` is what the named phases leave of the step."""
    phases = {name: record.series(f"time/{name}_s") for name in _PHASES}
    named: dict[int, float] = {}
    for points in phases.values():
        for step, seconds in points:
            named[step] = named.get(step, 0.0) + seconds
    other = [(step, max(0.0, total - named.get(step, 0.0))) for step, total in record.series("time/step_s")]
    return {name: points for name, points in {**phases, "other": other}.items() if points}


def phase_bar(record: RunRecord) -> Html:
    """Where the time of all steps went."""
    totals = {name: sum(seconds for _, seconds in points) for name, points in phase_seconds(record).items()}
    return share_bar(totals, unit="s") if totals else element("p", None, "No step has been timed.")


def _chart(curve: _Curve, record: RunRecord) -> Chart:
    return Chart(
        title=curve.title,
        series={label: record.series(name) for label, name in curve.names.items()},
        bounds={curve.bound[0]: curve.bound[1](record)} if curve.bound else {},
        y_range=curve.y_range,
        prefer_log=curve.prefer_log,
        note=curve.note,
    )
