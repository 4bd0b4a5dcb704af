"""What lies in a folder, in the order in which it came about: trainings, those that came before them, benchmarks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import RefusedInput
from orchestrator.reporting.markup import Html, element, join, table
from orchestrator.reporting.run_record import RunRecord, holds_run, read_run
from orchestrator.reporting.texts import cut
from orchestrator.run.folder import RunFolder
from orchestrator.run.plain_files import UnreadableFile, json_value, read_plain

SCORES_FILE = "scores.json"
"""Written by ``orchestrator.evaluate`` and by the stages that measure a model."""
_MOST_CHAPTERS = 40
_MOST_BYTES = 1 << 26
_LONGEST_CELL = 300
_NOT_STAGES = ("checkpoints", "rollouts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One folder: a training, or the scores of a model on a benchmark."""

    root: Path
    name: str
    record: RunRecord | None = None
    scores: Mapping[str, Any] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """What says what it was made from."""
        return self.record.config if self.record else self.scores or {}


def chapters_of(root: Path) -> list[Chapter]:
    """What the folder holds, each behind what it was made from, the folder's own training behind those within it.

    Raises:
        RefusedInput: there is no such folder, or nothing of a run is in it.
    """
    if not root.is_dir():
        raise RefusedInput(f"RUN_DIR {str(root)!r} is not a folder")
    found = [chapter for folder in _stages(root) for chapter in _within(folder, name=folder.name)]
    own = _own(root, name=root.resolve().name, is_root=True)
    if not found and not own:
        raise RefusedInput(
            f"RUN_DIR {str(root)!r} holds no run: neither config.json nor metrics.jsonl nor {SCORES_FILE} is in it"
        )
    trained = [chapter for chapter in own if chapter.record]
    measured_within = [chapter for chapter in found if trained and chapter.scores]
    earlier = [chapter for chapter in found if chapter not in measured_within]
    ordered = [*_in_order(earlier), *own, *measured_within]
    told = _not_followed(root, len(ordered) - _MOST_CHAPTERS)
    last = replace(ordered[-1], left_out=(*ordered[-1].left_out, *told))
    return [*ordered[: min(len(ordered), _MOST_CHAPTERS) - 1], last]


def contents(chapters: Sequence[Chapter], headlines: Sequence[str]) -> Html:
    """The chapters as a list of links, a sentence each."""
    rows = [
        element(
            "li",
            None,
            element("a", {"href": f"#chapter-{number}"}, chapter.name),
            element("span", {"class": "kind"}, _kind(chapter)),
            *_made_from(chapter, chapters[:number]),
            element("p", None, headline),
        )
        for number, (chapter, headline) in enumerate(zip(chapters, headlines, strict=True))
    ]
    return element("ol", {"class": "story"}, *rows)


def score_headline(scores: Mapping[str, Any]) -> str:
    """The first figure of the first way of counting, in a sentence."""
    benchmark = _word(scores.get("benchmark"))
    for way, counted in _objects(scores.get("ways")):
        for name, figure in _objects(counted.get("figures")):
            return f"{benchmark}: {name} {_figure(figure)}, counted as {way}."
    return f"{benchmark}: no figures."


def score_table(scores: Mapping[str, Any]) -> Html:
    """Every figure with its interval, a column for each way of counting."""
    ways = dict(_objects(scores.get("ways")))
    figures = {way: dict(_objects(counted.get("figures"))) for way, counted in ways.items()}
    names = dict.fromkeys(name for own in figures.values() for name in own)
    rows = [(name, *(_figure(figures[way].get(name)) for way in ways)) for name in names]
    notes = scores.get("notes")
    told = [element("li", None, _word(note)) for note in notes] if isinstance(notes, list) else []
    return join(
        [
            element("p", {"class": "note"}, f"{_word(scores.get('benchmark'))}, model {_word(scores.get('model'))}"),
            table(("", *ways), rows),
            element("p", {"class": "note"}, "In brackets the middle 95 % of what the questions give, drawn again."),
            *([element("ul", {"class": "note"}, *told)] if told else []),
        ]
    )


def _stages(root: Path) -> list[Path]:
    """Folders within it that may be stages, those first that were begun first."""
    found = [one for one in root.iterdir() if one.is_dir() and not one.is_symlink() and one.name not in _NOT_STAGES]
    return sorted((one for one in found if not one.name.startswith(".")), key=lambda one: (_begun(one), one.name))


def _not_followed(root: Path, too_many: int) -> list[str]:
    links = sorted(one.name for one in root.iterdir() if one.is_symlink() and one.is_dir())
    told = [f"{cut(name, _LONGEST_CELL)} is a link to a folder and is not followed." for name in links[:3]]
    return [*told, f"{too_many} more folders are left out."] if too_many > 0 else told


def _begun(folder: Path) -> float:
    files = (folder / name for name in ("config.json", "metrics.jsonl", SCORES_FILE))
    return min((file.lstat().st_mtime for file in files if file.is_file()), default=0.0)


def _within(folder: Path, *, name: str) -> Iterable[Chapter]:
    """A stage, and what came before it within its own folder."""
    own = _own(folder, name=name)
    if any(chapter.record for chapter in own):
        for inner in _stages(folder):
            yield from _own(inner, name=f"{name}/{inner.name}")
    yield from own


def _own(folder: Path, *, name: str, is_root: bool = False) -> list[Chapter]:
    found = []
    # A model's folder has a config.json too.
    if (is_root and holds_run(folder)) or RunFolder(folder).metrics.is_file():
        record = read_run(folder)
        found.append(Chapter(root=folder, name=name, record=record, left_out=record.left_out))
    if (folder / SCORES_FILE).is_file():
        found.append(_measured(folder, name))
    return found


def _measured(folder: Path, name: str) -> Chapter:
    try:
        scores = json_value(read_plain(folder / SCORES_FILE, most=_MOST_BYTES, inside=folder))
        if not isinstance(scores, dict):
            raise UnreadableFile("holds no JSON object")
    except UnreadableFile as error:
        return Chapter(root=folder, name=name, scores={}, left_out=(f"{name}/{SCORES_FILE} {error}.",))
    return Chapter(root=folder, name=name, scores=scores)


def _in_order(chapters: list[Chapter]) -> list[Chapter]:
    """Each behind those that it names in its settings, else as they came."""
    ordered: list[Chapter] = []
    waiting = list(chapters)
    while waiting:
        ready = next((one for one in waiting if not _needs(one, waiting)), waiting[0])
        waiting.remove(ready)
        ordered.append(ready)
    return ordered


def _needs(chapter: Chapter, others: Sequence[Chapter]) -> list[Chapter]:
    paths = [f"{value}/" for value in _texts(chapter.settings, deepest=4)]
    return [
        other
        for other in others
        if other.root != chapter.root
        and not chapter.root.is_relative_to(other.root)
        and any("/".join((*other.root.resolve().parts[-2:], "")) in path for path in paths)
    ]


def _made_from(chapter: Chapter, earlier: Sequence[Chapter]) -> list[Html]:
    found = [one.name for one in _needs(chapter, earlier)]
    return [element("span", {"class": "kind"}, f"from {', '.join(found)}")] if found else []


def _texts(value: object, *, deepest: int) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and deepest:
        for inner in value.values():
            yield from _texts(inner, deepest=deepest - 1)


def _kind(chapter: Chapter) -> str:
    if chapter.record is not None:
        return f"training, {cut(chapter.record.algo, _LONGEST_CELL)}"
    return f"benchmark, {_word((chapter.scores or {}).get('benchmark'))}"


def _objects(value: object) -> list[tuple[str, Mapping[str, Any]]]:
    """Names and objects of an object of objects; what is none is passed over."""
    return [(name, one) for name, one in value.items() if isinstance(one, dict)] if isinstance(value, dict) else []


def _figure(figure: Mapping[str, Any] | None) -> str:
    if figure is None or not isinstance(figure.get("value"), int | float):
        return "–"
    interval = figure.get("interval")
    told = ""
    if isinstance(interval, list) and len(interval) == 2 and all(isinstance(end, int | float) for end in interval):
        told = f" ({interval[0]:.3f}-{interval[1]:.3f})"
    return f"{figure['value']:.3f}{told}"


def _word(value: object) -> str:
    return cut(value if isinstance(value, str) else "not named", _LONGEST_CELL)
