"""MMMU: multiple choice and open questions. Invariant: an answer that cannot be read is wrong and counted."""

import re
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from orchestrator.data.media import media_parts
from orchestrator.evaluation.answers import parse_option
from orchestrator.evaluation.benchmarks.fields import (
    image_numbers,
    images_of,
    letter_of,
    lettered,
    options_of,
    text_of,
    texts_of,
    unknown,
)
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, Part, keys_of
from orchestrator.evaluation.figures import Counting, by_group, count, mean
from orchestrator.evaluation.open_readings import open_by_mmmu
from orchestrator.evaluation.option_readings import option_by_mmmu

_MIN_DECIMALS = 2
_MOST_EXPONENT = 308
"""Of ten: that of the largest float."""
_MARKED = re.compile(r"(?i:\banswer\b[\s*_]*(?:is\b|:|>))[\s:*_]*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_TAIL = re.compile(r".*(?:\b(?:is|are|was|were|equals|be)\b|[=≈:])", re.IGNORECASE)
_REASON = re.compile(r"[,;]\s|\s(?:because|since|as)\s", re.IGNORECASE)
_TIMES_TEN = re.compile(r"\s*(?:×|\*|\\times|\bx\b)\s*10\s*\^\s*\{?\(?([-−]?\d+)\)?\}?")
# Neither part of a word nor of a power or fraction: "H2O", "3^2", "3²" and "1/2" hold no number of their own.
_NUMBER = re.compile(
    r"(?<![\w.^/])[-−+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-−+]?\d+)?"
    r"(?![\d^⁰¹²³⁴-⁹]|[.,]\d|/\d)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MmmuRow:
    """One answered question."""

    text: str
    """The response."""
    truths: tuple[str, ...]
    """Of a choice the right letter, of an open question all that count as right."""
    options: Mapping[str, str]
    """Text of each option by its letter; empty where the question is open."""
    group: str
    """Discipline, subject or split: whatever the figures are wanted by."""


def count_mmmu(rows: Sequence[MmmuRow], keys: Sequence[Hashable] | None = None, *, way: str = "strict") -> Counting:
    """Accuracies in [0, 1]: of all questions, of choices, of open ones and of each group.

    Args:
        way: Who reads the responses. ``strict``: what cannot be read is wrong. ``official``: it is worth what the
            random letter is worth that the released script draws for it, 1 / number of options.
        keys: Names of the questions; their numbers without.
    Source: Yue et al. 2024, micro-averaged accuracy, https://arxiv.org/abs/2311.16502.
    """
    judged = [_judged(row) if way == "strict" else _judged_there(row) for row in rows]
    credit = [float(right) if right is not None else _luck(row, way) for right, row in zip(judged, rows, strict=True)]
    is_open = [not row.options for row in rows]
    drawn = judged.count(None) if way != "strict" else 0
    return count(
        way,
        range(len(rows)) if keys is None else keys,
        [
            mean("accuracy", credit),
            mean("accuracy/choice", credit, among=[not one for one in is_open]),
            mean("accuracy/open", credit, among=is_open),
            *by_group("accuracy", credit, [row.group for row in rows]),
        ],
        counts={"rows": len(rows), "open": sum(is_open), "unreadable": judged.count(None)},
        notes=[f"{drawn} answers count as the random letter that is drawn for them there"] if drawn else [],
    )


def _judged(row: MmmuRow) -> bool | None:
    return judge_choice(row.text, row.options, row.truths[0]) if row.options else judge_open(row.text, row.truths)


def _judged_there(row: MmmuRow) -> bool | None:
    if not row.options:
        return open_by_mmmu(row.text, row.truths)
    letter = option_by_mmmu(row.text, row.options)
    return None if letter is None else letter in row.truths


def _luck(row: MmmuRow, way: str) -> float:
    return 0.0 if way == "strict" else 1 / len(row.options)


def judge_choice(response: str, options: Mapping[str, str], label: str) -> bool | None:
    """Tell whether the response chooses the option ``label``; None where no single option can be read.

    Source: MMMU, eval_utils.py, which draws an option at random there, and takes the last of several.
    """
    answer = parse_option(response, options)
    return None if answer is None else answer == label


def judge_open(response: str, truths: Sequence[str]) -> bool | None:
    """Tell whether the response gives one of the truths; None where nothing can be read.

    A truth that is a number is compared with the one number of the answer, as decimals, within half a unit of the
    truth's last written place, or of the second one if it has fewer. Another truth must equal the answer, both
    normalised: a word inside another word, or one of several words offered, is not right.

    Args:
        response: The model's text; ``final_answer`` says which part of it is the answer.
        truths: All that count as right; at least one.
    Raises:
        ValueError: no truth is given, so nothing could be right.
    Source: MMMU, eval_utils.py, with four faults left out: a truth is right there as part of a word ("no" in
        "unknown"); any number of several is right; 0.004 equals 0.001, both rounded to two places; text is put in
        lower case before it is cut at capitals, so sentences stay joined. VL-RLHF asks the open questions as
        choice between the truth and "Other Answers", which tells the answer.
    """
    if not truths:
        raise ValueError("an open question needs at least one truth, got none")
    answer = final_answer(response)
    verdicts = [_equals_number(answer, truth) if _is_number(truth) else _equals_text(answer, truth) for truth in truths]
    if any(verdicts):
        return True
    return None if all(verdict is None for verdict in verdicts) else False


def final_answer(response: str) -> str:
    """Return the sentence after the last "answer is", "answer:" or ``<answer>``, else the last sentence."""
    text = unicodedata.normalize("NFC", response).replace("</answer>", "\n").strip()
    marks = list(_MARKED.finditer(text))
    if marks:
        lines = text[marks[-1].end() :].strip().splitlines()
        return _SENTENCE_END.split(lines[0])[0] if lines else ""
    lines = text.splitlines()
    return _SENTENCE_END.split(lines[-1])[-1] if lines else ""


def read_number(answer: str) -> Decimal | None:
    """Return the one number after the last "is", "=" or ":", else of the whole sentence; None without exactly one."""
    answer = _TIMES_TEN.sub(r"e\1", answer)
    for part in (_tail(answer), answer):
        if found := {decimal_of(number) for number in _NUMBER.findall(part)}:
            return found.pop() if len(found) == 1 else None
    return None


def decimal_of(number: str) -> Decimal | None:
    """The number that a text writes; None where it writes none, or one that no float is near: none can be compared."""
    try:
        value = Decimal(number.replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None
    last = value.as_tuple().exponent
    if not isinstance(last, int):  # a letter: infinity, or none
        return None
    return value if max(abs(value.adjusted()), abs(last)) <= _MOST_EXPONENT else None


def normalised(text: str) -> str:
    """Lower case, single spaces, without punctuation at the ends, without a leading article."""
    text = " ".join(unicodedata.normalize("NFC", text).lower().split())
    return re.sub(r"^(?:an?|the)\s+", "", re.sub(r"^[^\w%°+-]+|[^\w%°+]+$", "", text))


def _tail(answer: str) -> str:
    found = _TAIL.match(answer)
    return answer[found.end() :] if found else answer


def _equals_number(answer: str, truth: str) -> bool | None:
    number, target = read_number(answer), decimal_of(_bare(truth))
    if number is None or target is None:
        return None
    exponent = target.as_tuple().exponent
    assert isinstance(exponent, int)
    return abs(number - target) <= Decimal(5).scaleb(-max(_MIN_DECIMALS, -exponent) - 1)


def _equals_text(answer: str, truth: str) -> bool | None:
    tail = _tail(answer)
    readings = {normalised(reading) for part in (answer, tail) for reading in (part, _REASON.split(part)[0])} - {""}
    return normalised(truth) in readings if readings else None


def _is_number(truth: str) -> bool:
    bare = _bare(truth)
    return _NUMBER.fullmatch(bare) is not None and decimal_of(bare) is not None


def _bare(truth: str) -> str:
    return _TIMES_TEN.sub(r"e\1", truth.strip()).strip("$% ")


_LETTERS = "ABCDEFGHI"
_MOST_IMAGES = 7
_IMAGES = tuple(f"image_{number}" for number in range(1, _MOST_IMAGES + 1))
_PLACE = re.compile(r"<image (\d+)>")
_KNOWN = {
    "id", "index", "question", "hint", "options", "answer", "question_type", "explanation", "topic_difficulty",
    "subfield", "img_type", "category", "l2-category", "split", "image", *_IMAGES, *_LETTERS,
}  # fmt: skip


def read_mmmu(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of the Parquet release or of MMMU_DEV_VAL.tsv, its images where the words name them.

    Raises:
        RowError: naming field and value.
    """
    options = options_of(row, _LETTERS)
    if not options and text_of(row, "question_type", default="") != "open" and "options" in row:
        options = lettered(texts_of(row, "options"))
    if options:
        truths: tuple[str, ...] = (letter_of(row, options, "answer"),)
    else:
        written = text_of(row, "answer")
        truths = tuple(texts_of(row, "answer")) if written.startswith("[") else (written,)
    images = [part for column in _IMAGES for part in media_parts(row, image_fields=(column,))["image"]]
    identity = text_of(row, "id", "index", default="")
    return ItemDraft(
        id=identity,
        question=placed(mmmu_prompt(row, options), images or images_of(row)),
        options=options,
        truths=truths,
        category=text_of(row, "category", default="_".join(identity.split("_")[1:-1])),
        unread=unknown(row, _KNOWN),
    )


def mmmu_prompt(row: Mapping[str, Any], options: Mapping[str, str]) -> str:
    """The words of a question, with its marks of images: hint, question, lettered options, and what to do.

    Source: VL-RLHF, mmmu/eval.py:29-110.
    """
    hint = text_of(row, "hint", default="")
    words = f"{f'Hint: {hint}{chr(10)}' if hint else ''}Question: {text_of(row, 'question')}\n"
    if options:
        words += "Options:\n" + "".join(f"{letter}. {text}\n" for letter, text in options.items())
        words += "Please select the correct answer from the options above. \n"
    return words


def placed(text: str, images: Sequence[Part]) -> tuple[Part, ...]:
    """The words with each image where ``<image N>`` stands; those that nothing names come first.

    Raises:
        RowError: the words name an image that the row does not have.
    Source: VL-RLHF, mmmu/eval.py:29-110, where the 17th mark and those of two digits stay words, and an image that
        nothing names is not shown.
    """
    pieces = _PLACE.split(text)
    named = image_numbers(pieces[1::2], len(images), told="the question names '<image {}>', the row has {} images")
    shown_first = [part for number, part in enumerate(images, start=1) if number not in named]
    parts = [
        images[int(piece) - 1] if i % 2 else {"type": "text", "text": piece} for i, piece in enumerate(pieces) if piece
    ]
    return (*shown_first, *parts)


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = [
        MmmuRow(text=one.text, truths=one.item.truths, options=one.item.options, group=one.item.category)
        for one in answered
    ]
    return count_mmmu(rows, keys_of(answered), way=options.way)


BENCHMARK = Benchmark(asks="answer", read=read_mmmu, count=_count, ways=("strict", "official"))
