"""SEEDBench-Img: four options a question, by what is written or by which option is likeliest.

Invariant: an answer that cannot be read is wrong and counted; no letter is drawn for it.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.evaluation.answers import parse_option
from orchestrator.evaluation.benchmarks.fields import asked, letter_of, needed_images, options_of, text_of, unknown
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, keys_of
from orchestrator.evaluation.figures import Counting, by_group, count, mean
from orchestrator.evaluation.option_readings import option_by_seed

IMAGE_TYPES = range(1, 10)


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
    """By letter, nats: the mean over the tokens of "The answer is: " and the option."""


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


_KNOWN = {
    "index", "question_id", "question", "answer", "category", "question_type_id", "data_id", "data_type", "segment",
    "image", "choice_a", "choice_b", "choice_c", "choice_d", *"ABCD",
}  # fmt: skip
_LETTER_ONLY = "Answer with the option's letter from the given choices directly."


def rows_of_seed_bench(whole: Any) -> list[Any] | None:
    """Questions about images of SEED-Bench.json."""
    questions = whole.get("questions") if isinstance(whole, dict) else None
    if not isinstance(questions, list):
        return None
    return [q for q in questions if not isinstance(q, dict) or q.get("question_type_id") in (None, *IMAGE_TYPES)]


def read_seed_bench(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of SEEDBench_IMG.tsv, or a question of SEED-Bench.json.

    Raises:
        RowError: naming field and value.
    """
    named = {letter: row.get(f"choice_{letter.lower()}") for letter in "ABCD"}
    options = options_of(row if any(letter in row for letter in "ABCD") else named, "ABCD")
    lines = "".join(f"{letter}. {text}\n" for letter, text in options.items())
    return ItemDraft(
        id=text_of(row, "question_id", "index", default=""),
        question=asked(needed_images(row, "image", "data_id"), f"{text_of(row, 'question')}\n{lines}{_LETTER_ONLY}"),
        options=options,
        truths=(letter_of(row, options, "answer"),),
        category=text_of(row, "category", "question_type_id"),
        meta={"question": text_of(row, "question")},
        unread=unknown(row, _KNOWN),
    )


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = [
        SeedRow(label=one.item.truths[0], type=one.item.category, text=one.text, options=one.item.options)
        for one in answered
    ]
    return count_seed_bench(rows, keys_of(answered), way=options.way)


BENCHMARK = Benchmark(
    asks="answer",
    read=read_seed_bench,
    count=_count,
    ways=("strict", "official", "sglang"),
    unpack=rows_of_seed_bench,
)
