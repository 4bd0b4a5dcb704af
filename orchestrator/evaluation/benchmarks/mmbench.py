"""MMBench, circular: every question is asked once for each rotation of its options.

Invariant: a question is right only if it is right under every rotation, and none of its rotations may be missing.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.data.rows import RowError, shown
from orchestrator.evaluation.answers import parse_option
from orchestrator.evaluation.benchmarks.fields import asked, letter_of, needed_images, options_of, text_of, unknown
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, keys_of
from orchestrator.evaluation.figures import Counting, by_group, count, mean
from orchestrator.evaluation.option_readings import option_by_kit

# The index of rotation k of question q is q + k million.
ROTATION_STEP = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MmbenchRow:
    """One question under one rotation of its options."""

    index: int
    """As in the file: the question, plus a million for each step of rotation."""
    text: str
    """The response."""
    label: str
    """The letter of the right option under this rotation."""
    options: Mapping[str, str]
    """Text of each option by its letter; the question has as many rotations."""
    group: str
    """Category, l2-category or split: whatever the figures are wanted by."""


_READINGS = {"strict": parse_option, "official": option_by_kit}


def count_mmbench(
    rows: Sequence[MmbenchRow], keys: Sequence[Hashable] | None = None, *, way: str = "strict"
) -> Counting:
    """Accuracies in [0, 1] of questions: ``circular``, right under every rotation, and ``vanilla``, as first asked.

    Args:
        way: Who reads the responses: ``strict``, or ``official``, the kit's rules without a judge.
        keys: Are not used: a question is drawn with all of its rotations.
    Raises:
        ValueError: a question without exactly one row for each of its rotations, or in two groups.
    Source: Liu et al. 2023, CircularEval and VanillaEval, https://arxiv.org/abs/2307.06281. VLMEvalKit,
        which VL-RLHF calls, draws an option at random where its judge fails; here an unreadable answer is wrong and
        counted. A missing rotation, which would make its question easier, is refused.
    """
    by_question: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_question[row.index % ROTATION_STEP].append(i)
    answers = [_READINGS[way](row.text, row.options) for row in rows]
    right = [answer == row.label for answer, row in zip(answers, rows, strict=True)]
    whole, asked_first = [0.0] * len(rows), [row.index < ROTATION_STEP for row in rows]
    for question, rotations in by_question.items():
        _check_rotations(question, [rows[i] for i in rotations])
        for i in rotations:
            whole[i] = float(all(right[j] for j in rotations))
    groups = [row.group for row in rows]
    return count(
        way,
        [row.index % ROTATION_STEP for row in rows],
        [
            mean("circular", whole, among=asked_first),
            mean("vanilla", [float(one) for one in right], among=asked_first),
            *by_group("circular", whole, groups, among=asked_first),
        ],
        counts={"rows": len(rows), "questions": len(by_question), "unreadable": answers.count(None)},
    )


def _check_rotations(question: int, rows: Sequence[MmbenchRow]) -> None:
    found = sorted(row.index // ROTATION_STEP for row in rows)
    num_options = {len(row.options) for row in rows}
    groups = {row.group for row in rows}
    if len(num_options) != 1 or len(groups) != 1:
        raise ValueError(f"question {question} has {sorted(num_options)} options and groups {sorted(groups)}")
    if found != list(range(len(rows[0].options))):
        raise ValueError(f"question {question} has {len(rows[0].options)} options, but rotations {found}")


_LETTERS = "ABCDE"
_MOST_DIGITS = 18
_KNOWN = {
    "index", "image", "question", "hint", "answer", "category", "l2-category", "split", "source", "comment",
    *_LETTERS,
}  # fmt: skip
_LETTER_ONLY = "please only output the option letter."


def read_mmbench(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of a TSV file, asked as VL-RLHF asks it, the image first.

    Raises:
        RowError: naming field and value.
    """
    index, options = text_of(row, "index"), options_of(row, _LETTERS)
    if not index.isdecimal() or len(index) > _MOST_DIGITS:
        raise RowError(f"field 'index' is {shown(index)}, expected a whole number of at most {_MOST_DIGITS} digits")
    return ItemDraft(
        id=index,
        question=asked(needed_images(row), mmbench_prompt(row)),
        options=options,
        truths=(letter_of(row, options, "answer"),),
        category=text_of(row, "category", default=""),
        group=str(int(index) % ROTATION_STEP),
        meta={"l2-category": text_of(row, "l2-category", default=""), "split": text_of(row, "split", default="")},
        unread=unknown(row, _KNOWN),
    )


def mmbench_prompt(row: Mapping[str, Any]) -> str:
    """The words of a question: hint, question, lettered options, and what to answer with.

    Source: VL-RLHF, mmbench/eval.py:27-121.
    """
    hint, question = text_of(row, "hint", default=""), text_of(row, "question")
    lines = "".join(f"{letter}. {text}\n" for letter, text in options_of(row, _LETTERS).items())
    return f"{f'{hint} ' if hint else ''}{question} There are several options:\n{lines}\n{_LETTER_ONLY}"


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = [
        MmbenchRow(
            index=int(one.item.id),
            text=one.text,
            label=one.item.truths[0],
            options=one.item.options,
            group=one.item.category,
        )
        for one in answered
    ]
    return count_mmbench(rows, keys_of(answered), way=options.way)


BENCHMARK = Benchmark(asks="answer", read=read_mmbench, count=_count, ways=tuple(_READINGS))
