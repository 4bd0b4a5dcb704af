"""What the policy said to the same held-out prompts before and after it learned, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.reporting.filters import choice, facts, filtered
from orchestrator.reporting.gallery import Gallery
from orchestrator.reporting.markup import Html, element, join
from orchestrator.reporting.rollouts import each_kind_in_turn
from orchestrator.reporting.samples import badge
from orchestrator.reporting.texts import cut, longest_of, or_none
from orchestrator.run.folder import RunFolder
from orchestrator.run.plain_files import UnreadableFile, json_value, read_plain

_MOST_BYTES = 1 << 28
_MOST_SHOWN = 48
_CHANGES = (
    "became right", "became wrong", "better", "worse", "stayed wrong", "stayed right", "as good", "not known",
)  # fmt: skip
_ANSWERS_FILE = "answers.jsonl"
"""Written by the stage that has answers judged, ``orchestrator/pipeline/answers.py``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to a held-out prompt."""

    text: str
    right: bool | None = None
    verdict: str | None = None
    reward: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to one prompt."""

    uid: str
    prompt: str
    media: tuple[tuple[str, str], ...]
    label: str
    source: str
    before: Answer
    after: Answer

    @property
    def change(self) -> str:
        """What became of the answer, in words."""
        old, new = self.before, self.after
        if old.reward is not None and new.reward is not None:
            return "better" if new.reward > old.reward else "worse" if new.reward < old.reward else "as good"
        if old.right is None or new.right is None:
            return "not known"
        return {(0, 1): "became right", (1, 0): "became wrong", (1, 1): "stayed right"}.get(
            (old.right, new.right), "stayed wrong"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The pairs of one run."""

    pairs: tuple[Pair, ...] = ()
    told: tuple[str, str] = ("before", "after")
    """Of which weights the answers are."""
    problems: tuple[str, ...] = ()


def held_out_answers(folder: RunFolder) -> HeldOut:
    """Those of the first and the last evaluation that kept answers; else those that a reward model judged."""
    steps, problems = folder.evaluation_steps(), list[str]()
    first = _first(folder, steps, problems)
    last = _first(folder, [step for step in reversed(steps) if first is None or step > first[0]], problems)
    if first is not None and last is not None:
        pairs = tuple(_pair(first[1][uid], new) for uid, new in last[1].items() if uid in first[1])
        told = (f"after {first[0]} steps" if first[0] else "before training", f"after {last[0]} steps")
        return HeldOut(pairs=pairs, told=told, problems=tuple(problems))
    return HeldOut(pairs=_judged(folder, problems), problems=tuple(problems))


def held_out_section(found: HeldOut, gallery: Gallery, *, share: float = 1.0) -> Html:
    """Pairs of every kind, those first that changed.

    Args:
        share: Of the page's room for texts.
    """
    shown = [found.pairs[k] for k in each_kind_in_turn((pair.change for pair in found.pairs), _MOST_SHOWN)]
    shown.sort(key=lambda pair: _CHANGES.index(pair.change))
    counts: dict[str, int] = {}
    for pair in found.pairs:
        counts[pair.change] = counts.get(pair.change, 0) + 1
    longest = longest_of((text for p in shown for text in (p.prompt, p.before.text, p.after.text)), share=share)
    controls = [
        *choice("change", "change", (pair.change for pair in shown)),
        *choice("source", "source", (pair.source for pair in shown)),
    ]
    cards = element("div", {"class": "samples"}, *(_card(pair, found.told, gallery, longest) for pair in shown))
    told = ", ".join(f"{count} {change}" for change, count in sorted(counts.items()))
    return join(
        [
            element("p", {"class": "note"}, f"{len(shown)} of {len(found.pairs)} prompts: {told}."),
            filtered("prompts", [cards], controls=controls, total=len(shown)),
        ]
    )


def _card(pair: Pair, told: tuple[str, str], gallery: Gallery, longest: int) -> Html:
    return element(
        "article",
        facts({"change": pair.change, "source": pair.source, "uid": pair.uid[:200]}),
        element("div", {"class": "pictures"}, gallery.pictures(pair.media)),
        element("pre", {"class": "prompt"}, cut(pair.prompt, longest)),
        _said(told[0], pair.before, longest, "before"),
        _said(told[1], pair.after, longest, "after"),
        element("p", {"class": "note"}, f"label {cut(pair.label or '-', longest)}, {cut(pair.uid, longest)}"),
    )


def _said(when: str, answer: Answer, longest: int, name: str) -> Html:
    told = [badge(answer.right)] if answer.right is not None else []
    told += [element("span", None, f"reward {or_none(answer.reward)}")] if answer.reward is not None else []
    return element(
        "div",
        {"class": f"said {name}"},
        element("p", {"class": "figures"}, f"{when} ", *told),
        element("pre", {"class": "completion"}, cut(answer.text, longest)),
    )


def _first(
    folder: RunFolder, steps: Sequence[int], problems: list[str]
) -> tuple[int, dict[str, Mapping[str, Any]]] | None:
    """The first of these evaluations that kept answers, by uid."""
    for step in steps:
        told = _json(folder.evaluation_file(step), folder.root, problems)
        samples = told.get("samples") if isinstance(told, dict) else None
        if isinstance(samples, list):
            known = [one for one in samples if isinstance(one, dict) and isinstance(one.get("uid"), str)]
            return step, {one["uid"]: one for one in known}
    return None


def _pair(old: Mapping[str, Any], new: Mapping[str, Any]) -> Pair:
    return Pair(
        uid=_text(new, "uid"),
        prompt=_text(new, "prompt_text"),
        media=_media(new),
        label=_text(new, "label"),
        source=_text(new, "source"),
        before=_answer(old),
        after=_answer(new),
    )


def _answer(sample: Mapping[str, Any]) -> Answer:
    verdict, label, right = (sample.get(name) for name in ("verdict", "label", "right"))
    return Answer(
        text=_text(sample, "completion_text"),
        # An evaluation of an earlier version does not say which are right.
        right=right if isinstance(right, bool) else verdict is not None and verdict == label,
        verdict=verdict if isinstance(verdict, str) else None,
    )


def _judged(folder: RunFolder, problems: list[str]) -> tuple[Pair, ...]:
    """Answers with the rewards of a reward model."""
    pairs = []
    for row in _lines(folder.evaluations / _ANSWERS_FILE, folder.root, problems):
        old, new = row.get("before"), row.get("after")
        if isinstance(old, dict) and isinstance(new, dict):
            pairs.append(
                Pair(
                    uid=_text(row, "uid"),
                    prompt=_text(row, "prompt_text"),
                    media=_media(row),
                    label="",
                    source="",
                    before=Answer(text=_text(old, "text"), reward=_number(old)),
                    after=Answer(text=_text(new, "text"), reward=_number(new)),
                )
            )
    return tuple(pairs)


def _lines(path: Path, root: Path, problems: list[str]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        lines = read_plain(path, most=_MOST_BYTES, inside=root).splitlines()
        rows = [json_value(line) for line in lines]
    except UnreadableFile as error:
        problems.append(f"{path.name} {error}.")
        return []
    return [row for row in rows if isinstance(row, dict)]


def _json(path: Path, root: Path, problems: list[str]) -> Any:
    try:
        return json_value(read_plain(path, most=_MOST_BYTES, inside=root))
    except UnreadableFile as error:
        problems.append(f"evaluations/{path.name} {error}.")
        return None


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _number(row: Mapping[str, Any]) -> float | None:
    value = row.get("reward")
    return float(value) if isinstance(value, int | float) else None


def _media(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    media = row.get("media")
    pairs = [one for one in media if isinstance(one, list) and len(one) == 2] if isinstance(media, list) else []
    return tuple((path, digest) for path, digest in pairs if isinstance(path, str) and isinstance(digest, str))
