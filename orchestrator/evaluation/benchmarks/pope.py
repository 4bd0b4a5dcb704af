"""POPE: does the model see objects that are not there? Invariant: an unanswered row is wrong and stays in every count.

Precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN), with "yes" as the positive answer.
An unanswered row is neither a yes nor a no: with label yes it is a missed object (FN), with label no it is no false
alarm, and in both cases it is not right.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.evaluation.answers import YesNo, parse_yes_no
from orchestrator.evaluation.benchmarks.fields import asked, needed_images, text_of, unknown, yes_no_of
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, keys_of
from orchestrator.evaluation.figures import Counting, Figure, Ratio, count, masked


@dataclass(frozen=True, slots=True, kw_only=True)
class PopeRow:
    """One question about one object."""

    text: str
    """The response."""
    label: YesNo
    split: str = ""
    """``random``, ``popular`` or ``adversarial``; empty where that is not known."""


def pope_official(text: str) -> YesNo:
    """Read a response as the released script does, to compare with published numbers; never unanswered.

    Only the text before the first full stop counts, without commas, cut at single spaces; "No", "no" or "not" among
    the words is no and everything else is yes: "NO", "There isn't any dog." and the empty response are yes.

    Source: POPE, evaluate.py, as VL-RLHF has it in pope/eval.py.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def pope_lmms_eval(text: str) -> YesNo | None:
    """Read a response as lmms-eval does: the whole of it must be the word, so "Yes." says nothing.

    Source: lmms-eval 0.7.3, tasks/pope/utils.py, which has no parser.
    """
    bare = text.lower().strip()
    return bare if bare in ("yes", "no") else None


_LMMS_EVAL_NOTES = (
    "the yes-ratio is that of the labels, not of the answers",
    "recall leaves out the objects that were answered with neither word",
)
_READINGS = {"strict": parse_yes_no, "official": pope_official, "lmms_eval": pope_lmms_eval}


def count_pope(rows: Sequence[PopeRow], keys: Sequence[Hashable] | None = None, *, way: str = "strict") -> Counting:
    """Accuracy, precision, recall, F1 and yes-ratio, in [0, 1], of all rows and of each split.

    A share of nothing is 0: precision without a yes, recall without a positive label, F1 without either.

    Args:
        way: Who reads the responses: ``strict``, ``official`` or ``lmms_eval``, whose yes-ratio is that of the labels
            and whose recall leaves out what is neither word.
        keys: Names of the questions; their numbers without.
    Source: Li et al. 2023 (POPE), its five metrics, https://arxiv.org/abs/2305.10355. VL-RLHF, whose script follows
        the released one, divides by zero in those cases, and reads a response that says nothing as yes.
    """
    answers = [_READINGS[way](row.text) for row in rows]
    splits = [row.split for row in rows]
    named = sorted(set(splits) - {""})
    figures = _figures(rows, answers, way, [True] * len(rows), "")
    for split in named if len(named) > 1 else ():
        figures += _figures(rows, answers, way, [one == split for one in splits], f"/{split}")
    return count(
        way,
        range(len(rows)) if keys is None else keys,
        figures,
        counts={"rows": len(rows), "unreadable": answers.count(None)},
        notes=_LMMS_EVAL_NOTES if way == "lmms_eval" else (),
    )


def _figures(
    rows: Sequence[PopeRow], answers: Sequence[YesNo | None], way: str, among: Sequence[bool], suffix: str
) -> list[Figure]:
    said = masked([float(answer == "yes") for answer in answers], among)
    positive = masked([float(row.label == "yes") for row in rows], among)
    hit = masked([float(a == row.label == "yes") for a, row in zip(answers, rows, strict=True)], among)
    right = masked([float(a == row.label) for a, row in zip(answers, rows, strict=True)], among)
    # To lmms-eval an object that was answered with neither word is not missed.
    sought = [
        float(row.label == "yes" and (way != "lmms_eval" or a is not None))
        for a, row in zip(answers, rows, strict=True)
    ]
    wanted = masked(sought, among).part
    return [
        Figure(f"accuracy{suffix}", (right,)),
        Figure(f"precision{suffix}", (Ratio(hit.part, said.part),)),
        Figure(f"recall{suffix}", (Ratio(hit.part, wanted),)),
        # 2 TP + FP + FN = (TP + FP) + (TP + FN)
        Figure(f"f1{suffix}", (Ratio(2 * hit.part, said.part + wanted),)),
        Figure(f"yes_ratio{suffix}", (positive if way == "lmms_eval" else said,)),
    ]


SPLITS = ("random", "popular", "adversarial")
_KNOWN = {
    "id", "question_id", "index", "question", "text", "answer", "label", "category", "image", "image_source",
    "split",
}  # fmt: skip


def read_pope(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of the released JSONL (``text``, ``label``), or of Parquet and TSV (``question``, ``answer``).

    Args:
        name: Last names of the file's path, which tell the split where no column does.
    Raises:
        RowError: naming field and value.
    """
    split = text_of(row, "category", "split", default="")
    told = next((one for one in SPLITS if one in name), "")
    return ItemDraft(
        id=text_of(row, "question_id", "id", "index", default=""),
        question=asked(needed_images(row), text_of(row, "question", "text")),
        truths=(yes_no_of(row, "answer" if "answer" in row else "label"),),
        category=split if split in SPLITS else told,
        unread=unknown(row, _KNOWN),
    )


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = [
        PopeRow(text=one.text, label="yes" if one.item.truths[0] == "yes" else "no", split=one.item.category)
        for one in answered
    ]
    return count_pope(rows, keys_of(answered), way=options.way)


BENCHMARK = Benchmark(asks="answer", read=read_pope, count=_count, ways=tuple(_READINGS))
