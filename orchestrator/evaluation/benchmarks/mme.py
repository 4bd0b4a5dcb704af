"""MME: two questions an image, one with answer yes, one with no. Invariant: an image has exactly its two questions."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.data.rows import RowError, shown
from orchestrator.evaluation.answers import YesNo, parse_yes_no
from orchestrator.evaluation.benchmarks.fields import asked, needed_images, text_of, unknown, yes_no_of
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, keys_of
from orchestrator.evaluation.figures import Counting, Figure, count, masked

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
REASONING = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_QUESTIONS_PER_IMAGE = 2
_LOOKED_AT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MmeRow:
    """One of the two questions about an image."""

    category: str
    """One of ``PERCEPTION`` and ``REASONING``."""
    image: str
    """Name of the image, unique in its category."""
    text: str
    """The response."""
    label: YesNo


def mme_official(text: str) -> YesNo | None:
    """Read a response as the released script does: it is the word, or the word stands in its first four letters.

    So "Know" and "Not sure" are no, and "The answer is yes" is nothing.

    Source: MME, eval_tool/calculation.py, on answers in lower case without full stops, as lmms-eval gives them to it.
    """
    bare = text.lower().strip().replace(".", "")
    start = {"y": "yes", "n": "no"}.get(bare, bare[:_LOOKED_AT])
    return "yes" if "yes" in start else "no" if "no" in start else None


_READINGS = {"strict": parse_yes_no, "official": mme_official}


def count_mme(rows: Sequence[MmeRow], keys: Sequence[Hashable] | None = None, *, way: str = "strict") -> Counting:
    """``perception`` in [0, 2000] and ``reasoning`` in [0, 800]: sums of the categories' scores.

    A category's score is 100 (accuracy + accuracy_plus): questions right among all, images with both right among all.
    One without rows adds 0, which a note says.

    Args:
        way: Who reads the responses, ``strict`` or ``official``.
        keys: Are not used: an image is drawn with both of its questions.
    Raises:
        ValueError: a category MME does not have, which would fall out of both sums, or an image without exactly two
            questions.
    Source: Fu et al. 2023, accuracy and accuracy+, https://arxiv.org/abs/2306.13394. VLMEvalKit, which VL-RLHF calls,
        takes the first two answers of an image for accuracy_plus however many there are; here more or fewer are
        refused.
    """
    names = PERCEPTION + REASONING
    if unknown := sorted({row.category for row in rows} - set(names)):
        raise ValueError(f"MME has no category {unknown}; it has {list(names)}")
    answers = [_READINGS[way](row.text) for row in rows]
    right = [float(a == row.label) for a, row in zip(answers, rows, strict=True)]
    both, first = _both(rows, right)
    found = {row.category for row in rows}
    figures, scores = list[Figure](), dict[str, Figure]()
    for name in (n for n in names if n in found):
        own = [row.category == name for row in rows]
        accuracy, plus = masked(right, own), masked(both, [o and f for o, f in zip(own, first, strict=True)])
        scores[name] = Figure(f"score/{name}", (replace(accuracy, scale=100.0), replace(plus, scale=100.0)))
        figures += [Figure(f"accuracy/{name}", (accuracy,)), Figure(f"accuracy_plus/{name}", (plus,)), scores[name]]
    missing = [name for name in names if name not in found]
    return count(
        way,
        [f"{row.category}/{row.image}" for row in rows],
        [_sum("perception", PERCEPTION, scores), _sum("reasoning", REASONING, scores), *figures],
        counts={"rows": len(rows), "unreadable": answers.count(None), "images": sum(first)},
        notes=[f"no rows of {', '.join(missing)}: the sums are not comparable with published ones"] if missing else [],
    )


def _sum(name: str, of: Sequence[str], scores: dict[str, Figure]) -> Figure:
    terms = tuple(term for one in of if one in scores for term in scores[one].terms)
    return Figure(name, terms)


def _both(rows: Sequence[MmeRow], right: Sequence[float]) -> tuple[list[float], list[bool]]:
    """Of each row, whether both questions of its image are right, and whether it is the image's first."""
    of_image: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        of_image[row.category, row.image].append(i)
    both, first = [0.0] * len(rows), [False] * len(rows)
    for (category, image), own in of_image.items():
        if len(own) != _QUESTIONS_PER_IMAGE:
            raise ValueError(f"image {image!r} of {category} has {len(own)} questions, MME has {_QUESTIONS_PER_IMAGE}")
        both[own[0]], first[own[0]] = float(all(right[i] for i in own)), True
    return both, first


_KNOWN = {"question_id", "index", "image", "image_path", "question", "answer", "category"}


def read_mme(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of MME.tsv or of the Parquet release; questions of one image share its name, or else its picture.

    Raises:
        RowError: naming field and value.
    """
    images = needed_images(row)
    category = text_of(row, "category")
    if category not in PERCEPTION + REASONING:
        raise RowError(f"field 'category' is {shown(category)}, which MME does not have")
    return ItemDraft(
        id=text_of(row, "question_id", "index", default=""),
        question=asked(images, text_of(row, "question")),
        truths=(yes_no_of(row, "answer"),),
        category=category,
        group=text_of(row, "question_id", "image_path", default=images[0]["image"].rpartition("/")[2]),
        unread=unknown(row, _KNOWN),
    )


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = [
        MmeRow(
            category=one.item.category,
            image=one.item.group,
            text=one.text,
            label="yes" if one.item.truths[0] == "yes" else "no",
        )
        for one in answered
    ]
    return count_mme(rows, keys_of(answered), way=options.way)


BENCHMARK = Benchmark(asks="answer", read=read_mme, count=_count, ways=tuple(_READINGS))
