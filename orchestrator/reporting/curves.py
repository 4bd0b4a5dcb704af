"""The curves of a report, as the run's own figures say, its memory, and where the time went."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from algorithms.figures import Figure
from orchestrator.reporting.charts import Chart, line_chart, share_bar, stacked_chart
from orchestrator.reporting.findings import CHANCE, coverage_bound, mismatch_bound
from orchestrator.reporting.markup import Html, element
from orchestrator.reporting.run_record import Point, RunRecord
from orchestrator.run.metrics import MEMORY_PREFIX

_SHARE = (0.0, 1.0)
"""Vertical range of what is a share."""
_CHANCE = ("chance", lambda record: CHANCE)


def _chance_of_judges(record: RunRecord) -> float | None:
    """Of whoever says which of two is better, not of whoever answers a question."""
    return CHANCE if record.names("eval/first_position_rate") else None


def _note_on_shuffled(record: RunRecord) -> str:
    falls = "a judge that looks falls to chance" if _chance_of_judges(record) else "a policy that looks is wrong"
    return f"With the images shuffled among the held-out rows, {falls}."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What a chart has besides its lines; a chart without one is drawn all the same."""

    bound: tuple[str, Callable[[RunRecord], float | None]] | None = None
    """A dashed line: its label, and where a run has it, if it has."""
    y_range: tuple[float, float] | None = None
    prefer_log: bool = False
    note: Callable[[RunRecord], str] = lambda record: ""


def _pair_note(record: RunRecord) -> str:
    if not record.names("preference/accuracy"):
        return "A step learns from responses one by one: only what is held out makes pairs."
    return "A tie counts one half held out, and nothing on the step's own pairs, taken before its update."


def _both_may_fall(record: RunRecord) -> str:
    if not record.names("time/reference_s"):
        return ""
    return "The margin can rise while both fall: then the policy leaves both kinds of responses behind."


_IMPLICIT_REWARDS = _Look(note=_both_may_fall)
_LOOKS = {
    "Held-out accuracy": _Look(
        bound=("chance", _chance_of_judges),
        y_range=_SHARE,
        note=_note_on_shuffled,
    ),
    "Engine against trainer, nats": _Look(
        bound=("bound of the mean", mismatch_bound),
        prefer_log=True,
        note=lambda record: "Gap between the log-probs of the engine that sampled and those of the trainer.",
    ),
    "Judge": _Look(bound=("least coverage", coverage_bound), y_range=_SHARE),
    "Share of cut completions": _Look(y_range=_SHARE),
    "Pair accuracy": _Look(bound=_CHANCE, y_range=_SHARE, note=_pair_note),
    "Token accuracy": _Look(
        y_range=_SHARE,
        note=lambda record: "Share of the response tokens that are the likeliest, those before them given.",
    ),
    "Chosen and rejected reward": _IMPLICIT_REWARDS,
    "Desirable and undesirable reward": _IMPLICIT_REWARDS,
    "Pairs against the critique reward model": _Look(y_range=_SHARE),
    "Rewards read off the model's own critiques": _Look(
        y_range=_SHARE,
        note=lambda record: "By critique_rm.scheduled_sampling; a critique that was cut is not among them.",
    ),
}


def curves(record: RunRecord) -> Html:
    """A chart of every title that the run's figures name, where it has data for one of them."""
    by_title: dict[str, list[Figure]] = {}
    for figure in record.figures:
        if figure.title:
            by_title.setdefault(figure.title, []).append(figure)
    drawn = [line_chart(_chart(title, figures, record)) for title, figures in by_title.items()]
    memory = {name.removeprefix(MEMORY_PREFIX): record.series(name) for name in record.names(MEMORY_PREFIX)}
    drawn.append(line_chart(Chart(title="Memory, GiB", series=memory, unit="GiB")))
    drawn.append(stacked_chart(Chart(title="Seconds of a step", series=phase_seconds(record), unit="seconds")))
    return element("div", {"class": "curves"}, *drawn)


def drawn_figures(record: RunRecord) -> list[tuple[str, str]]:
    """Names of the figures that have a title, each with that title and what tells it from others of the same."""
    shared: dict[str, int] = {}
    for figure in record.figures:
        shared[figure.title] = shared.get(figure.title, 0) + 1
    found = []
    for figure in record.figures:
        is_many = figure.name.endswith("*")
        for name in record.names(figure.name[:-1]) if is_many else [figure.name]:
            label = _end(name) if is_many or not figure.label else figure.label
            alone = shared[figure.title] == 1 and not is_many
            found.append((name, figure.title if alone else f"{figure.title}: {label}"))
    return [(name, title) for name, title in found if title.partition(": ")[0]]


def phase_seconds(record: RunRecord) -> dict[str, list[Point]]:
    """Seconds of every phase by step; ``other`` is what they leave of the step."""
    names = [name.removeprefix("time/").removesuffix("_s") for name in record.names("time/")]
    phases = {name: record.series(f"time/{name}_s") for name in names if name != "step"}
    timed: dict[int, float] = {}
    for points in phases.values():
        for step, seconds in points:
            timed[step] = timed.get(step, 0.0) + seconds
    other = [(step, max(0.0, total - timed.get(step, 0.0))) for step, total in record.series("time/step_s")]
    return {name: points for name, points in {**phases, "other": other}.items() if points}


def phase_bar(record: RunRecord) -> Html:
    """Where the time of all steps went."""
    totals = {name: sum(seconds for _, seconds in points) for name, points in phase_seconds(record).items()}
    return share_bar(totals, unit="s") if totals else element("p", None, "No step has been timed.")


def _chart(title: str, figures: Iterable[Figure], record: RunRecord) -> Chart:
    look = _LOOKS.get(title, _Look())
    return Chart(
        title=title,
        series=_series(figures, record),
        bounds={look.bound[0]: bound} if look.bound and (bound := look.bound[1](record)) is not None else {},
        y_range=look.y_range,
        prefer_log=look.prefer_log,
        unit=unit_of(title, is_share=look.y_range == _SHARE),
        note=look.note(record),
    )


def unit_of(title: str, *, is_share: bool = False) -> str:
    """What a title says behind its comma."""
    return "share" if is_share else title.rpartition(", ")[2] if ", " in title else ""


def _series(figures: Iterable[Figure], record: RunRecord) -> dict[str, list[Point]]:
    """By label; a name that ends in ``*`` stands for every figure of the run that begins so."""
    series: dict[str, list[Point]] = {}
    for figure in figures:
        names = record.names(figure.name[:-1]) if figure.name.endswith("*") else [figure.name]
        for name in names:
            series.setdefault(figure.label if len(names) == 1 and figure.label else _end(name), record.series(name))
    return series


def _end(name: str) -> str:
    return name.rpartition("/")[2]
