"""MathVista: choices, whole numbers, decimals and lists. Invariant: what cannot be read is wrong and counted."""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from string import ascii_uppercase
from typing import Any, Literal, get_args

from orchestrator.data.keys import is_empty
from orchestrator.data.rows import RowError, is_finite_number, shown, unicode_text
from orchestrator.evaluation.answers import parse_option
from orchestrator.evaluation.benchmarks.fields import (
    asked,
    json_of,
    lettered,
    needed_images,
    text_of,
    texts_of,
    unknown,
)
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, keys_of
from orchestrator.evaluation.benchmarks.mmmu import decimal_of, final_answer, normalised, read_number
from orchestrator.evaluation.figures import Counting, count, mean

AnswerType = Literal["text", "integer", "float", "list"]
_QUOTED = re.compile(r'The answer is "(.*)"\.')
_BRACKETED = re.compile(r"\(([a-zA-Z])\)")
_LIST = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class MathVistaRow:
    """One answered question."""

    text: str
    """The response."""
    answer: str
    """As in the file: of a choice its text, of a list the text of the list."""
    choices: tuple[str, ...] = ()
    """Texts of the choices in order; empty where the answer is free."""
    answer_type: AnswerType = "text"
    precision: int | None = None
    """Decimals of a ``float``."""
    extraction: str | None = None
    """What a judge took out of the response, where one was asked."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By kind, ``task`` or ``skills``, the groups that the question is in."""

    @property
    def options(self) -> dict[str, str]:
        """The choices by their letters."""
        return dict(zip(ascii_uppercase, self.choices, strict=False))


def extract_official(row: MathVistaRow) -> str | None:
    """What the released script takes out of the response before it asks GPT-4; None where it would ask.

    Source: MathVista, evaluation/extract_answer.py, with ``--quick_extract``.
    """
    text = row.text
    if text == "" or text in row.choices:
        return text
    if row.answer_type == "integer" and (number := _number(text, whole=True)) is not None:
        return str(int(number))
    if row.answer_type == "float" and (number := _number(text, whole=False)) is not None:
        return str(number)
    quoted = _QUOTED.search(text)
    return quoted[1] if quoted else None


def is_right_official(extraction: str, row: MathVistaRow) -> bool:
    """Whether the released script calls an extraction right.

    Of a choice the letter in brackets counts, else a letter alone, else the choice that is nearest by edits, so that
    nothing is ever unreadable. Numbers are cut to whole ones, or rounded to the question's decimals, and compared as
    texts.

    Source: MathVista, evaluation/calculate_score.py, normalize_extracted_answer and safe_equal.
    """
    if row.choices:
        text = extraction.strip()
        letters = _BRACKETED.findall(text)
        text = letters[0].upper() if letters else text
        chosen = row.options.get(text) or min(row.choices, key=lambda choice: _edits(text, choice))
        return chosen == row.answer
    if row.answer_type == "list":
        return extraction == row.answer
    if row.answer_type == "text":
        return extraction == row.answer
    number = _number(extraction, whole=False)
    if number is None:
        return False
    if row.answer_type == "integer":
        return str(int(number)) == row.answer
    return str(round(number, row.precision)) == row.answer


def judge_strict(row: MathVistaRow) -> bool | None:
    """Whether the response is right; None where no single answer can be read.

    A choice is read by ``parse_option``, a number is the one of the answer's sentence, equal to the truth within half a
    unit of its last decimal that counts, a list must be the one list of the answer, a text equal it but for case,
    punctuation at its ends and a leading article.

    Source: ours.
    """
    text = row.extraction if row.extraction is not None else row.text
    if row.choices:
        letter = parse_option(text, row.options)
        return None if letter is None else row.options[letter] == row.answer
    if row.answer_type in ("integer", "float"):
        return _equals(final_answer(text), row)
    if row.answer_type == "list":
        lists = {_items(found) for found in _LIST.findall(text)}
        return None if len(lists) != 1 else lists == {_items(row.answer)}
    answer = normalised(final_answer(text))
    return answer == normalised(row.answer) if answer else None


def count_math_vista(
    rows: Sequence[MathVistaRow], keys: Sequence[Hashable] | None = None, *, way: str = "strict"
) -> Counting:
    """Accuracies in [0, 1], of all questions and of each group of each kind; a question may be in several of a kind.

    Args:
        way: ``strict``, or ``official``, where what GPT-4 would have to be asked about and was not is wrong.
        keys: Names of the questions; their numbers without.
    Source: Lu et al. 2024, https://arxiv.org/abs/2310.02255. VLMEvalKit compares a text answer with "None", so that
        none is ever right there.
    """
    judged = [judge_strict(row) if way == "strict" else _official(row) for row in rows]
    credit = [float(right or 0) for right in judged]
    figures = [mean("accuracy", credit)]
    for kind in sorted({kind for row in rows for kind in row.groups}):
        members = [row.groups.get(kind, ()) for row in rows]
        for group in sorted({one for own in members for one in own}):
            figures.append(mean(f"accuracy/{kind}/{group}", credit, among=[group in own for own in members]))
    unread = judged.count(None)
    return count(
        way,
        range(len(rows)) if keys is None else keys,
        figures,
        counts={"rows": len(rows), "unreadable": unread},
        notes=[f"{unread} answers that GPT-4 is asked about there are wrong here"]
        if unread and way != "strict"
        else [],
    )


def _official(row: MathVistaRow) -> bool | None:
    extraction = row.extraction if row.extraction is not None else extract_official(row)
    return None if extraction is None else is_right_official(extraction, row)


def _equals(answer: str, row: MathVistaRow) -> bool | None:
    number = read_number(answer)
    if number is None:
        return None
    truth = decimal_of(row.answer.strip())
    if truth is None:
        return False
    places = 0 if row.answer_type == "integer" else row.precision or 0
    return abs(number - truth) <= (Decimal(5).scaleb(-places - 1) if places else Decimal(0))


def _number(text: str, *, whole: bool) -> float | None:
    try:
        number = float(int(text)) if whole else float(text)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) != float("inf") and number == number else None


def _items(text: str) -> tuple[str, ...]:
    """Of a list, without quotes and white space."""
    return tuple(item.strip().strip("'\"").strip() for item in text.strip().strip("[]").split(","))


def _edits(one: str, other: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


_KNOWN = {
    "pid", "question", "image", "decoded_image", "choices", "unit", "precision", "answer", "question_type",
    "answer_type", "metadata", "query",
}  # fmt: skip
_KINDS = ("task", "skills")
_MOST_DECIMALS = 15
"""As many as a float has."""


def read_math_vista(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of the Parquet release, asked by its ``query``.

    Raises:
        RowError: naming field and value.
    """
    choices = texts_of(row, "choices") if not is_empty(row.get("choices")) else []
    kind, answer = text_of(row, "answer_type"), text_of(row, "answer")
    if kind not in get_args(AnswerType):
        raise RowError(f"field 'answer_type' is {shown(kind)}, expected one of {', '.join(get_args(AnswerType))}")
    if choices and answer not in choices:
        raise RowError(f"field 'answer' is {shown(answer)}, which is none of the choices")
    told = json_of(row, "metadata")
    groups = told if isinstance(told, dict) else {}
    return ItemDraft(
        id=text_of(row, "pid", default=""),
        question=asked(needed_images(row, "decoded_image", "image"), text_of(row, "query", "question")),
        options=lettered(choices),
        truths=(answer,),
        meta={
            "answer_type": kind,
            "precision": _precision(row),
            "groups": {one: _group(groups.get(one)) for one in _KINDS if one in groups},
        },
        unread=unknown(row, _KNOWN),
    )


def _precision(row: Mapping[str, Any]) -> int | None:
    """Decimals of a number; in a table the column is NaN where there are none."""
    value = row.get("precision")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not is_finite_number(value) or value != int(value) or not 0 <= value <= _MOST_DECIMALS:
        raise RowError(
            f"field 'precision' is {shown(value)}, expected a whole number of decimals, at most {_MOST_DECIMALS}"
        )
    return int(value)


def _group(value: Any) -> list[str]:
    return [unicode_text(str(one), "metadata") for one in (value if isinstance(value, list) else [value])]


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = [
        MathVistaRow(
            text=one.text,
            answer=one.item.truths[0],
            choices=tuple(one.item.options.values()),
            answer_type=one.item.meta["answer_type"],
            precision=one.item.meta["precision"],
            extraction=one.reply or None,
            groups={kind: tuple(own) for kind, own in one.item.meta["groups"].items()},
        )
        for one in answered
    ]
    return count_math_vista(rows, keys_of(answered), way=options.way)


BENCHMARK = Benchmark(asks="answer", read=read_math_vista, count=_count, ways=("strict", "official"))
