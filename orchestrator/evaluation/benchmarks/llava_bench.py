"""LLaVA-Bench: a judge scores two answers to a question, the reference's and the model's; their means are compared.

Invariant: a review without two scores is left out of both means, and counted.
"""

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from orchestrator.evaluation.benchmarks.fields import asked, needed_images, text_of, unknown
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, Item, ItemDraft, keys_of
from orchestrator.evaluation.figures import Counting, Figure, Ratio, count
from orchestrator.rewards.asking import filled

_FAILED = (-1.0, -1.0)
_LEAST, _MOST = 0.0, 10.0
_NUMBER = r"(\d+(?:\.\d+)?)(?:\s*/\s*10)?"
_SCORES = re.compile(
    rf"[\s*_(\[]*(?:scores?[\s*_:=]+)?{_NUMBER}(?:\s*[,;]\s*|\s+(?:and\s+)?){_NUMBER}[\s.*]*", re.IGNORECASE
)


_DIGITS, _PERCENT = 3, 100

Scores = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRow:
    """One reviewed answer."""

    review: str
    """The judge's."""
    category: str = ""
    """``conv``, ``detail`` or ``complex``; with the prefix ``llava_bench_`` in the wild; empty where there is none."""


def parse_scores(review: str) -> Scores | None:
    """The two scores, each in [0, 10], that are all of the first line that says something; None where it is not plain.

    Source: ours. "8, 9", "8/10 9/10" and "Scores: 8 9" are read; "nan 3", "11 2" and three numbers are not.
    """
    lines = [line for line in review.splitlines() if line.strip()]
    found = _SCORES.fullmatch(lines[0].strip()) if lines else None
    if found is None:
        return None
    scores = float(found[1]), float(found[2])
    return scores if all(_LEAST <= score <= _MOST for score in scores) else None


def llava_bench_official(review: str) -> Scores:
    """The scores as the released script reads them; −1 and −1 where it fails, which it then averages in.

    The first line, its commas made spaces, must fall into two parts at single spaces, each of which is a number to
    Python: "8, 9" and "8 9 " fail, "nan 3" and "-1 5" do not.

    Source: LLaVA-RLHF, Eval/eval_gpt_review_visual.py:36-49.
    """
    parts = review.split("\n")[0].replace(",", " ").split(" ")
    try:
        first, second = (float(part) for part in parts)
    except ValueError:
        return _FAILED
    return first, second


def count_llava_bench(
    rows: Sequence[ReviewRow], keys: Sequence[Hashable] | None = None, *, way: str = "strict"
) -> Counting:
    """The model's mean score in percent of the reference's, over all rows and for each category.

    Args:
        way: ``strict`` leaves out what cannot be read; ``official`` averages −1 in for both, and shows each relative
            score as the script prints it: means rounded to 3 digits, the result to 1.
    Source: Liu et al. 2023, https://arxiv.org/abs/2304.08485, section 5.1.
    """
    official = way == "official"
    read = [llava_bench_official(row.review) if official else parse_scores(row.review) for row in rows]
    # Python reads "nan" and "inf", with which no mean says anything.
    scores = [one if one is not None and all(map(math.isfinite, one)) else None for one in read]
    figures = relative_scores(scores, [row.category for row in rows], rounded=official)
    failed = sum(one is None or one == _FAILED for one in scores)
    return count(
        way,
        range(len(rows)) if keys is None else keys,
        figures,
        counts={"rows": len(rows), "unreadable": failed},
        notes=[f"{failed} reviews without scores count as -1 in both means"] if official and failed else [],
    )


def relative_scores(scores: Sequence[Scores | None], categories: Sequence[str], *, rounded: bool) -> list[Figure]:
    """``relative_score``, and for each category; None is in no mean.

    Args:
        rounded: Give what the released script prints.
    Source: LLaVA-RLHF, Eval/summarize_gpt_review.py:18-69. It divides by zero where the reference's mean is 0, which is
        0 here.
    """
    names = [("relative_score", None), *((f"relative_score/{c}", c) for c in sorted(set(categories) - {""}))]
    return [
        _relative(name, [s if of in (None, c) else None for s, c in zip(scores, categories, strict=True)], rounded)
        for name, of in names
    ]


def _relative(name: str, scores: Sequence[Scores | None], rounded: bool) -> Figure:
    kept = [(0.0, 0.0) if s is None else s for s in scores]
    figure = Figure(name, (Ratio(np.array([s[1] for s in kept]), np.array([s[0] for s in kept]), float(_PERCENT)),))
    counted = sum(s is not None for s in scores)
    if not rounded or not counted:
        return figure
    reference, own = (round(sum(s[i] for s in kept) / counted, _DIGITS) for i in (0, 1))
    return replace(figure, printed=round(own / reference * _PERCENT, 1) if reference else 0.0)


_KNOWN = {
    "index", "question_id", "image", "text", "question", "category", "gpt4_ans", "answer", "caption", "image_path",
}  # fmt: skip


def read_llava_bench(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of LLaVABench.tsv or of the released JSONL of questions.

    Raises:
        RowError: naming field and value.
    """
    text = text_of(row, "question", "text")
    return ItemDraft(
        id=text_of(row, "question_id", "index", default=""),
        question=asked(needed_images(row), text),
        category=text_of(row, "category"),
        meta={
            "question": text,
            "reference": text_of(row, "gpt4_ans", "answer", default=""),
            "caption": text_of(row, "caption", default=""),
        },
        unread=unknown(row, _KNOWN),
    )


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = [ReviewRow(review=one.reply, category=one.item.category) for one in answered]
    return count_llava_bench(rows, keys_of(answered), way=options.way)


_JUDGED = """Score the answers of two assistants to a question about an image. You do not see the image.

What is in it: {context}

Question: {question}

Assistant 1: {reference}

Assistant 2: {response}

Weigh helpfulness, relevance, accuracy and detail. The first line holds two numbers from 1 to 10 and nothing else, that
of Assistant 1, a space, that of Assistant 2. Explain below it, without regard to the order."""


def judge_question(item: Item, answer: str) -> str:
    """What the judge is asked, in our words: in the place of the captions and boxes of COCO stands the file's caption.

    Source: LLaVA-RLHF, Eval/eval_gpt_review_bench.py, for what the judge is told.
    """
    words = {
        "context": item.meta["caption"] or "(not told)",
        "question": item.meta["question"],
        "reference": item.meta["reference"],
        "response": answer,
    }
    return filled(_JUDGED, words)


BENCHMARK = Benchmark(
    asks="answer", read=read_llava_bench, count=_count, ways=("strict", "official"), judge=judge_question
)
