"""Several runs on one page: how each went, the settings that differ, and their curves over each other."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.reporting.charts import Chart, line_chart
from orchestrator.reporting.choice_of_kind import kind_of
from orchestrator.reporting.curves import drawn_figures, phase_seconds, unit_of
from orchestrator.reporting.findings import ANSWER_WORDS
from orchestrator.reporting.markup import Html, element, join, table
from orchestrator.reporting.run_record import RunRecord, status
from orchestrator.reporting.texts import cut

_LONGEST_CELL = 200
_OWN = ("run.dir",)
"""Settings that say nothing but which run it is."""


def names_of(records: Sequence[RunRecord]) -> list[str]:
    """A name for each, the folder's, with as much of the path before it as tells them apart."""
    paths = [record.folder.root.resolve().parts for record in records]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]


def comparison(records: Sequence[RunRecord]) -> Html:
    """How the runs went, what they differ in, and their curves."""
    names = names_of(records)
    return join(
        [
            element("h2", None, "How they went"),
            table(("run", "algorithm", "", ""), _outcomes(names, records)),
            element("h2", None, "Is it learning, is it right?"),
            _answers(names, records),
            element("h2", None, "Settings that differ"),
            _differences(names, records),
            element("h2", None, "Curves"),
            element("div", {"class": "curves"}, *_overlaid(names, records)),
        ]
    )


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Settings by dotted name that are not the same in all, with the value of each; ``–`` where one has none."""
    flat = [_without_folder(_flat(config)) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one if name not in _OWN)
    values = {name: [one.get(name, "–") for one in flat] for name in names}
    return {name: told for name, told in values.items() if len(set(told)) > 1}


def _without_folder(settings: dict[str, str]) -> dict[str, str]:
    """What lies in the run's own folder is the same in all."""
    folder = settings.get("run.dir")
    if not folder:
        return settings
    return {name: value.replace(f"{folder}/", "run.dir/") for name, value in settings.items()}


def _outcomes(names: Sequence[str], records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    return [
        (name, cut(record.algo, _LONGEST_CELL), kind_of(record).headline(record), status(record))
        for name, record in zip(names, records, strict=True)
    ]


def _answers(names: Sequence[str], records: Sequence[RunRecord]) -> Html:
    """A row for each question that any of them answers."""
    answers: dict[str, dict[str, Html]] = {}
    for name, record in zip(names, records, strict=True):
        kind = kind_of(record)
        for question in (*kind.learning, *kind.soundness):
            check = question(record)
            mark = element("span", {"class": check.answer, "title": check.detail}, ANSWER_WORDS[check.answer])
            answers.setdefault(check.question, {})[name] = mark
    return table(("", *names), ((asked, *(own.get(name, "–") for name in names)) for asked, own in answers.items()))


def _differences(names: Sequence[str], records: Sequence[RunRecord]) -> Html:
    found = differing([record.config for record in records])
    if not found:
        return element("p", None, "None: they differ in their folders alone.")
    return table(("", *names), ((name, *values) for name, values in found.items()))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[f"{prefix}{name}"] = cut(told, _LONGEST_CELL)
    return found


def _overlaid(names: Sequence[str], records: Sequence[RunRecord]) -> list[Html]:
    """A chart of each figure that any of them has, with a line for each run."""
    figures = {name: title for record in records for name, title in drawn_figures(record)}
    drawn = [
        line_chart(
            Chart(
                title=title,
                series={run: record.series(name) for run, record in zip(names, records, strict=True)},
                unit=unit_of(title.partition(": ")[0]),
            )
        )
        for name, title in figures.items()
    ]
    timed = {
        run: record.series("time/step_s") for run, record in zip(names, records, strict=True) if phase_seconds(record)
    }
    return [*drawn, line_chart(Chart(title="Seconds of a step", series=timed, unit="seconds"))]
