"""MME: two questions an image, one with answer yes, one with no. Invariant: an image has exactly its two questions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.evaluation.answers import YesNo, share

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


@dataclass(frozen=True, slots=True, kw_only=True)
class MmeRow:
    """One of the two questions about an image."""

    category: str
    """One of ``PERCEPTION`` and ``REASONING``."""
    image: str
    """Name of the image, unique in its category."""
    answer: YesNo | None
    """What was read in the response; None where it does not say."""
    label: YesNo


@dataclass(frozen=True, slots=True, kw_only=True)
class MmeCategory:
    """Figures of one category: shares in [0, 1], counts of questions and images, and the score in [0, 200]."""

    accuracy: float
    """Questions answered right, among all; an unanswered one is wrong."""
    accuracy_plus: float
    """Images with both questions right, among all images."""
    score: float
    """100 (accuracy + accuracy_plus)."""
    num_questions: int
    num_images: int
    num_unanswered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MmeResult:
    """Figures of the benchmark.

    Source: Fu et al. 2023, accuracy and accuracy+, https://arxiv.org/abs/2306.13394. VLMEvalKit, which VL-RLHF calls,
        takes the first two answers of an image for accuracy_plus however many there are; here more
        or fewer than two are refused.
    """

    categories: Mapping[str, MmeCategory]
    """Those with rows, by name."""
    perception: float
    """Sum of the scores of the ten perception categories, in [0, 2000]; one that is missing adds 0."""
    reasoning: float
    """Sum of the scores of the four reasoning categories, in [0, 800]; one that is missing adds 0."""
    missing: tuple[str, ...]
    """Categories without rows: with any here a sum is not comparable with published ones."""


def score_mme(rows: Sequence[MmeRow]) -> MmeResult:
    """Score the rows, in any order.

    Raises:
        ValueError: a category MME does not have, which would fall out of both sums, or an image without exactly two
            questions.
    """
    by_category: dict[str, list[MmeRow]] = defaultdict(list)
    for row in rows:
        by_category[row.category].append(row)
    names = PERCEPTION + REASONING
    if unknown := sorted(set(by_category) - set(names)):
        raise ValueError(f"MME has no category {unknown}; it has {list(names)}")
    categories = {name: _score_category(by_category[name]) for name in names if name in by_category}
    return MmeResult(
        categories=categories,
        perception=sum((categories[name].score for name in PERCEPTION if name in categories), 0.0),
        reasoning=sum((categories[name].score for name in REASONING if name in categories), 0.0),
        missing=tuple(name for name in names if name not in categories),
    )


def _score_category(rows: Sequence[MmeRow]) -> MmeCategory:
    right_by_image: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        right_by_image[row.image].append(row.answer == row.label)
    for image, right in right_by_image.items():
        if len(right) != _QUESTIONS_PER_IMAGE:
            raise ValueError(
                f"image {image!r} of {rows[0].category} has {len(right)} questions, MME has {_QUESTIONS_PER_IMAGE}"
            )
    accuracy = share(sum(sum(right) for right in right_by_image.values()), len(rows))
    accuracy_plus = share(sum(all(right) for right in right_by_image.values()), len(right_by_image))
    return MmeCategory(
        accuracy=accuracy,
        accuracy_plus=accuracy_plus,
        score=100 * (accuracy + accuracy_plus),
        num_questions=len(rows),
        num_images=len(right_by_image),
        num_unanswered=sum(row.answer is None for row in rows),
    )
