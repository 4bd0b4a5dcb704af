"""The page: headline, the two questions, curves, time, samples, configuration."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.reporting.choice_of_kind import kind_of
from orchestrator.reporting.curves import curves, phase_bar
from orchestrator.reporting.findings import Check, no_alarm
from orchestrator.reporting.markup import Html, document, element, table
from orchestrator.reporting.run_kind import RunKind
from orchestrator.reporting.run_record import RunRecord, status
from orchestrator.reporting.samples import sample_section

_WORDS = {"yes": "yes", "no": "no", "unknown": "not known"}


def render(record: RunRecord) -> str:
    """The report as one HTML document that loads nothing from anywhere."""
    kind = kind_of(record)
    name = f"{record.algo} · {record.folder.root.resolve().name}"
    body = [
        element("h1", None, name),
        element("p", {"class": "headline"}, kind.headline(record)),
        element("p", None, status(record)),
        *_torn(record),
        element("h2", None, "Is it learning?"),
        _checks([question(record) for question in kind.learning]),
        element("h2", None, "Is it right?"),
        _checks([*(question(record) for question in kind.soundness), no_alarm(record)]),
        element("h2", None, "Curves"),
        curves(record) if record.rows else element("p", None, "No step is finished yet."),
        element("h2", None, "Where the time went"),
        phase_bar(record),
        *_samples(record, kind),
        element("h2", None, "What ran"),
        _manifest(record.manifest),
        element("details", None, element("summary", None, "Configuration"), _json(record.config)),
    ]
    return document(name, *body)


def _checks(checks: list[Check]) -> Html:
    rows = ((c.question, element("span", {"class": c.answer}, _WORDS[c.answer]), c.detail) for c in checks)
    return table(("", "", "figures"), rows)


def _samples(record: RunRecord, kind: RunKind) -> list[Html]:
    if not kind.has_rollouts and not record.folder.rollout_steps():
        return []
    return [element("h2", None, "What it saw and said"), sample_section(record.folder)]


def _torn(record: RunRecord) -> list[Html]:
    if not record.num_torn_lines:
        return []
    return [element("p", {"class": "note"}, f"{record.num_torn_lines} torn lines of metrics.jsonl were left out.")]


def _manifest(manifest: Mapping[str, Any]) -> Html:
    if not manifest:
        return element("p", None, "manifest.json is missing: versions and seed are not known.")
    flat = {name: value for name, value in manifest.items() if name != "figures" and not isinstance(value, dict)}
    versions = manifest.get("versions")
    if isinstance(versions, dict):
        flat |= {f"version of {package}": version for package, version in versions.items()}
    return table(("", ""), ((name, str(value)) for name, value in flat.items()))


def _json(value: Mapping[str, Any]) -> Html:
    return element("pre", None, json.dumps(value, indent=2, ensure_ascii=False) if value else "config.json is missing.")
