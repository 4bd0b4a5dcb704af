"""The figures of a report: the curves of its kind, memory, and where the time went."""

from collections.abc import Sequence

from orchestrator.reporting.charts import Chart, line_chart, share_bar, stacked_chart
from orchestrator.reporting.markup import Html, element
from orchestrator.reporting.run_kind import Curve, RunKind
from orchestrator.reporting.run_record import Point, RunRecord
from orchestrator.run.metrics import MEMORY_PREFIX


def curves(record: RunRecord, kind: RunKind) -> Html:
    """Every figure of this kind of run that it has data for."""
    memory = {name.removeprefix(MEMORY_PREFIX): record.series(name) for name in record.names(MEMORY_PREFIX)}
    figures = [line_chart(_chart(curve, record)) for curve in kind.curves]
    figures.append(line_chart(Chart(title="Memory, GiB", series=memory)))
    figures.append(stacked_chart(Chart(title="Seconds of a step", series=phase_seconds(record, kind.phases))))
    return element("div", {"class": "curves"}, *figures)


def phase_seconds(record: RunRecord, named_phases: Sequence[str]) -> dict[str, list[Point]]:
    """Seconds of every phase by step; ``other`` is what the named phases leave of the step."""
    phases = {name: record.series(f"time/{name}_s") for name in named_phases}
    named: dict[int, float] = {}
    for points in phases.values():
        for step, seconds in points:
            named[step] = named.get(step, 0.0) + seconds
    other = [(step, max(0.0, total - named.get(step, 0.0))) for step, total in record.series("time/step_s")]
    return {name: points for name, points in {**phases, "other": other}.items() if points}


def phase_bar(record: RunRecord, kind: RunKind) -> Html:
    """Where the time of all steps went."""
    totals = {
        name: sum(seconds for _, seconds in points) for name, points in phase_seconds(record, kind.phases).items()
    }
    return share_bar(totals, unit="s") if totals else element("p", None, "No step has been timed.")


def _chart(curve: Curve, record: RunRecord) -> Chart:
    return Chart(
        title=curve.title,
        series={
            label.replace("*", found.removeprefix(name[:-1])): record.series(found)
            for label, name in curve.names.items()
            for found in (record.names(name[:-1]) if name.endswith("*") else [name])
        },
        bounds={curve.bound[0]: curve.bound[1](record)} if curve.bound else {},
        y_range=curve.y_range,
        prefer_log=curve.prefer_log,
        note=curve.note,
    )
