"""MM-Vet: open answers, each given a number from 0 to 1 by a judge. Invariant: a reply without one is counted apart."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.evaluation.benchmarks.fields import asked, needed_images, text_of, texts_of, unknown
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, Item, ItemDraft, keys_of
from orchestrator.evaluation.figures import Counting, count, mean
from orchestrator.rewards.asking import filled

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
_GRADE = re.compile(r"[\s*_|(\[]*(?:(?:correctness|score)[\s*_:=]+)?([01](?:\.\d+)?|\.\d+)[\s.|*]*", re.IGNORECASE)
_PERCENT = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MmVetRow:
    """One graded answer."""

    reply: str
    """The judge's."""
    capabilities: frozenset[str]
    """What the question needs, of ``CAPABILITIES``."""


def parse_grade(reply: str) -> float | None:
    """The one number from 0 to 1 that is all of the reply, but for punctuation and the word that was asked for.

    Source: ours.
    """
    found = _GRADE.fullmatch(reply.strip())
    grade = float(found[1]) if found else None
    return grade if grade is not None and 0.0 <= grade <= 1.0 else None


def mm_vet_official(reply: str) -> float | None:
    """The grade as the released script reads it; None where it asks again, five times in all, and then takes 0.

    Its judge may write three tokens; what stands before the first space must be a number of Python's from 0 to 1.

    Source: MM-Vet, mm-vet_evaluator.py, runs.
    """
    try:
        grade = float(reply.split(" ")[0].strip())
    except ValueError:
        return None
    return grade if 0.0 <= grade <= 1.0 else None


def count_mm_vet(rows: Sequence[MmVetRow], keys: Sequence[Hashable] | None = None, *, way: str = "strict") -> Counting:
    """Mean grades times 100: of all answers, of those that need a capability, and of each set of capabilities.

    Args:
        way: ``strict`` leaves out what cannot be read, ``official`` makes it a 0.
        keys: Names of the questions; their numbers without.
    Source: Yu et al. 2023, https://arxiv.org/abs/2308.02490, section 3.3.
    """
    grades = [mm_vet_official(row.reply) if way == "official" else parse_grade(row.reply) for row in rows]
    readable = [grade is not None for grade in grades]
    counted = [True] * len(rows) if way == "official" else readable
    values = [grade or 0.0 for grade in grades]
    figures = [mean("total", values, among=counted, scale=_PERCENT)]
    known = [one for one in CAPABILITIES if any(one in row.capabilities for row in rows)]
    for one in [*known, *sorted({c for row in rows for c in row.capabilities} - set(CAPABILITIES))]:
        own = [c and one in row.capabilities for c, row in zip(counted, rows, strict=True)]
        figures.append(mean(f"total/{one}", values, among=own, scale=_PERCENT))
    for together in sorted({"_".join(sorted(row.capabilities)) for row in rows if len(row.capabilities) > 1}):
        own = [c and "_".join(sorted(row.capabilities)) == together for c, row in zip(counted, rows, strict=True)]
        figures.append(mean(f"together/{together}", values, among=own, scale=_PERCENT))
    return count(
        way,
        range(len(rows)) if keys is None else keys,
        figures,
        counts={"rows": len(rows), "unreadable": readable.count(False)},
    )


_KNOWN = {"id", "imagename", "image", "question", "answer", "capability", "imagesource", "added_in"}


def rows_of_mm_vet(whole: Any) -> list[Any] | None:
    """Rows of mm-vet.json, an object of them by their ids."""
    if not isinstance(whole, dict) or not all(isinstance(row, dict) for row in whole.values()):
        return None
    return [{"id": name, **row} for name, row in whole.items()]


def read_mm_vet(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of mm-vet.json.

    Raises:
        RowError: naming field and value.
    """
    question = text_of(row, "question")
    return ItemDraft(
        id=text_of(row, "id", default=""),
        question=asked(needed_images(row, "imagename", "image"), question),
        truths=(text_of(row, "answer"),),
        meta={"question": question, "capability": texts_of(row, "capability")},
        unread=unknown(row, _KNOWN),
    )


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = [MmVetRow(reply=one.reply, capabilities=frozenset(one.item.meta["capability"])) for one in answered]
    return count_mm_vet(rows, keys_of(answered), way=options.way)


_JUDGED = """Grade an answer by the right one: a number from 0.0, all wrong, to 1.0, all right, in steps of 0.1. <AND>
joins parts that are all needed, <OR> ones of which any is enough.

Question: {question}

Right answer: {truth}

Answer: {response}

Write the number and nothing else."""


def judge_question(item: Item, answer: str) -> str:
    """What the judge is asked, in our words and without the release's seven worked examples.

    Source: MM-Vet, mm-vet_evaluator.py, for what a grade means.
    """
    return filled(_JUDGED, {"question": item.meta["question"], "truth": item.truths[0], "response": answer})


BENCHMARK = Benchmark(
    asks="answer",
    read=read_mm_vet,
    count=_count,
    ways=("strict", "official"),
    judge=judge_question,
    unpack=rows_of_mm_vet,
)
