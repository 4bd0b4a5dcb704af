"""The pages: of one folder, whose trainings and benchmarks are chapters, and of several runs beside each other."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.reporting.choice_of_kind import kind_of
from orchestrator.reporting.comparison import comparison, names_of
from orchestrator.reporting.curves import curves, phase_bar
from orchestrator.reporting.findings import ANSWER_WORDS, Check, no_alarm
from orchestrator.reporting.gallery import Gallery
from orchestrator.reporting.held_out_answers import held_out_answers, held_out_section
from orchestrator.reporting.markup import Html, document, element, table
from orchestrator.reporting.rollouts import some_rollouts
from orchestrator.reporting.run_record import RunRecord, status
from orchestrator.reporting.samples import sample_section
from orchestrator.reporting.story import Chapter, contents, score_headline, score_table
from orchestrator.reporting.texts import cut

_MOST_TOLD = 20
_LONGEST_VALUE, _LONGEST_CONFIG = 2000, 1 << 18


@dataclass(frozen=True, slots=True)
class Page:
    """One HTML document that loads nothing from anywhere."""

    text: str
    left_out: tuple[str, ...]
    """What could not be shown, and why, a sentence each; the page says it too."""


class _Making:
    """A page that is being made: the pictures that it has, and how many runs share its room."""

    def __init__(self, num_runs: int) -> None:
        self.gallery = Gallery()
        self.num_runs = max(1, num_runs)
        self.left_out: list[str] = []

    def page(self, title: str, head: Sequence[Html], body: Sequence[Html]) -> Page:
        """With what was left out above it."""
        told = tuple(dict.fromkeys([*self.left_out, *self.gallery.left_out]))
        if len(told) > _MOST_TOLD:
            told = (*told[:_MOST_TOLD], f"{len(told) - _MOST_TOLD} more things are left out.")
        notes = [element("p", {"class": "note"}, sentence) for sentence in told]
        return Page(document(title, *head, *notes, *body, with_script=True), told)


def render(record: RunRecord) -> str:
    """The report of one training."""
    name = record.folder.root.resolve().name
    return story_page([Chapter(root=record.folder.root, name=name, record=record, left_out=record.left_out)]).text


def story_page(chapters: Sequence[Chapter]) -> Page:
    """The report of a folder: its last training in full, and what came before and after it a click away."""
    trained = [chapter for chapter in chapters if chapter.record]
    main = (trained or list(chapters))[-1]
    making = _Making(len(trained))
    headlines = [_headline(chapter) for chapter in chapters]
    name = f"{main.record.algo} · {main.name}" if main.record else main.name
    head = [element("h1", None, name), element("p", {"class": "headline"}, headlines[chapters.index(main)])]
    head += [element("p", {"class": "status"}, status(main.record))] if main.record else []
    body: list[Html] = []
    if len(chapters) > 1:
        body += [element("h2", None, "What was done, in order"), contents(chapters, headlines)]
    for number, chapter in enumerate(chapters):
        making.left_out += chapter.left_out
        told = _chapter(chapter, making)
        if chapter is main:
            body.append(element("section", {"id": f"chapter-{number}"}, *told))
        else:
            summary = element("summary", None, f"{number + 1}. {chapter.name}: {headlines[number]}")
            # A link to what is within a closed chapter opens it; one to the chapter would not.
            inner = element("div", {"id": f"chapter-{number}"}, *told)
            body.append(element("details", {"class": "chapter"}, summary, inner))
    return making.page(name, head, body)


def comparison_page(records: Sequence[RunRecord]) -> Page:
    """Several runs: what they differ in and their curves over each other, each in full a click away."""
    making, names = _Making(len(records)), names_of(records)
    title = f"{len(records)} runs: {', '.join(names)}"
    body = [comparison(records), element("h2", None, "Each run")]
    for name, record in zip(names, records, strict=True):
        making.left_out += [f"{name}: {sentence}" for sentence in record.left_out]
        summary = element("summary", None, f"{name}: {kind_of(record).headline(record)}")
        body.append(element("details", {"class": "chapter"}, summary, *_training(record, making)))
    return making.page(title, [element("h1", None, "Comparison"), element("p", {"class": "headline"}, title)], body)


def _headline(chapter: Chapter) -> str:
    if chapter.record is not None:
        return kind_of(chapter.record).headline(chapter.record)
    return score_headline(chapter.scores or {})


def _chapter(chapter: Chapter, making: _Making) -> list[Html]:
    told = [] if chapter.record is None else _training(chapter.record, making)
    return told if chapter.scores is None else [*told, score_table(chapter.scores)]


def _training(record: RunRecord, making: _Making) -> list[Html]:
    kind = kind_of(record)
    return [
        element("h2", None, "Is it learning?"),
        _checks([question(record) for question in kind.learning]),
        element("h2", None, "Is it right?"),
        _checks([*(question(record) for question in kind.soundness), no_alarm(record)]),
        element("h2", None, "Curves"),
        curves(record) if record.rows else element("p", None, "No step is finished yet."),
        element("h2", None, "Where the time went"),
        phase_bar(record),
        *_held_out(record, making),
        *_samples(record, making, expected=kind.has_rollouts),
        element("h2", None, "What ran"),
        _manifest(record.manifest),
        element("details", None, element("summary", None, "Configuration"), _json(record.config)),
    ]


def _checks(checks: list[Check]) -> Html:
    rows = ((c.question, element("span", {"class": c.answer}, ANSWER_WORDS[c.answer]), c.detail) for c in checks)
    return table(("", "", "figures"), rows)


def _held_out(record: RunRecord, making: _Making) -> list[Html]:
    found = held_out_answers(record.folder)
    making.left_out += found.problems
    if not found.pairs:
        return []
    section = held_out_section(found, making.gallery, share=1 / making.num_runs)
    return [element("h2", None, "The same held-out prompts, before and after"), section]


def _samples(record: RunRecord, making: _Making, *, expected: bool) -> list[Html]:
    steps = some_rollouts(record.folder, share=1 / making.num_runs)
    making.left_out += [f"Step {step.step}: {step.problem}." for step in steps if step.problem]
    if not steps and not expected:
        return []
    section = sample_section(steps, making.gallery, share=1 / making.num_runs)
    return [element("h2", None, "What it saw and said"), section]


def _manifest(manifest: Mapping[str, Any]) -> Html:
    if not manifest:
        return element("p", None, "manifest.json is missing: versions and seed are not known.")
    flat = {name: value for name, value in manifest.items() if name != "figures" and not isinstance(value, dict)}
    versions = manifest.get("versions")
    if isinstance(versions, dict):
        flat |= {f"version of {package}": version for package, version in versions.items()}
    return table(("", ""), ((name, cut(str(value), _LONGEST_VALUE)) for name, value in flat.items()))


def _json(value: Mapping[str, Any]) -> Html:
    told = json.dumps(value, indent=2, ensure_ascii=False) if value else "config.json is missing."
    return element("pre", None, cut(told, _LONGEST_CONFIG))
