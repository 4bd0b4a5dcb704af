"""SEEDBench-Img: four options a question, by what is written or by which option is likeliest.

Invariant: an answer that cannot be read is wrong and counted; no letter is drawn for it.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.evaluation.answers import parse_option
from orchestrator.evaluation.figures import Counting, by_group, count, mean
from orchestrator.evaluation.option_readings import option_by_seed

IMAGE_TYPES = range(1, 10)
VIDEO_TYPES = range(10, 13)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRow:
    """One answered question."""

    label: str
    """The letter of the right option."""
    type: str
    """Name of the question's type."""
    text: str = ""
    """The response; empty where options were compared by likelihood."""
    options: Mapping[str, str] = field(default_factory=dict)
    nll: Mapping[str, float] = field(default_factory=dict)
    """By letter, nats: the mean over the option's tokens behind "The answer is: "."""


def of_task(type_id: int, task: str) -> bool:
    """Whether a question is of ``image``, ``video``, ``all`` or the type whose number ``task`` is.

    Raises:
        ValueError: ``task`` is something else.
    Source: VL-RLHF, seedbench/calculate.py:15-25.
    """
    if task == "all":
        return True
    if task in ("image", "video"):
        return type_id in (IMAGE_TYPES if task == "image" else VIDEO_TYPES)
    try:
        return type_id == int(task)
    except ValueError as error:
        raise ValueError(f"task = {task!r}: expected image, video, all or the number of a type") from error


def likeliest(nll: Mapping[str, float]) -> str | None:
    """The letter of the smallest number, the first of equal ones; NaN is no candidate, and of nothing there is none.

    Source: VL-RLHF, seedbench/eval.py:73-90, where a NaN that comes first is never replaced.
    """
    known = {letter: value for letter, value in nll.items() if not math.isnan(value)}
    return min(known, key=known.__getitem__) if known else None


def count_seed_bench(
    rows: Sequence[SeedRow], keys: Sequence[Hashable] | None = None, *, way: str = "strict"
) -> Counting:
    """Accuracy in [0, 1], of all questions and of each type.

    Args:
        way: ``strict``; ``official``, the first character, where the judge that the script would ask is not asked;
            ``sglang``, where what cannot be read is worth the random letter that is drawn there; ``likelihood``.
        keys: Names of the questions; their numbers without.
    Source: Li et al. 2023, https://arxiv.org/abs/2307.16125; VL-RLHF, seedbench/calculate.py:28-72, where a type
        without a right answer fails.
    """
    answers = [_answer(row, way) for row in rows]
    lucky = way == "sglang"
    credit = [
        float(answer == row.label) if answer is not None or not lucky else 1 / max(1, len(row.options))
        for answer, row in zip(answers, rows, strict=True)
    ]
    unread = answers.count(None)
    notes = {
        "official": f"{unread} answers that a judge is asked about there are wrong here",
        "sglang": f"{unread} answers count as the random letter that is drawn for them there",
    }
    return count(
        way,
        range(len(rows)) if keys is None else keys,
        [mean("accuracy", credit), *by_group("accuracy", credit, [row.type for row in rows])],
        counts={"rows": len(rows), "unreadable": unread},
        notes=[notes[way]] if unread and way in notes else [],
    )


def _answer(row: SeedRow, way: str) -> str | None:
    if way == "likelihood":
        return likeliest(row.nll)
    if way == "strict":
        return parse_option(row.text, row.options)
    return option_by_seed(row.text, row.options, script="sglang" if way == "sglang" else "judge")
