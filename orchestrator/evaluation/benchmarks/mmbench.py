"""MMBench, circular: every question is asked once for each rotation of its options.

Invariant: a question is right only if it is right under every rotation, and none of its rotations may be missing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.evaluation.answers import share

# The index of rotation k of question q is q + k million.
_ROTATION_STEP = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MmbenchRow:
    """One question under one rotation of its options."""

    index: int
    """As in the file: the question, plus a million for each step of rotation."""
    answer: str | None
    """The letter read in the response by ``parse_option``; None where it is not plain."""
    label: str
    """The letter of the right option under this rotation."""
    num_options: int
    """Options of the question, and so its rotations."""
    group: str
    """Category, l2-category or split: whatever the figures are wanted by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MmbenchResult:
    """Figures of the benchmark: shares in [0, 1], counts of questions and rows.

    Source: Liu et al. 2023, CircularEval and VanillaEval, https://arxiv.org/abs/2307.06281. VLMEvalKit,
        which VL-RLHF calls, draws an option at random where its judge fails; here an unreadable answer is wrong and
        counted. A missing rotation, which would make its question easier, is refused.
    """

    circular_accuracy: float
    """Questions right under every rotation."""
    vanilla_accuracy: float
    """Questions right as first asked, without rotation; never below ``circular_accuracy``."""
    circular_by_group: Mapping[str, float]
    """``circular_accuracy`` of each group, sorted by name."""
    num_questions: int
    num_rows: int
    num_unreadable: int
    """Rows whose answer is None."""


def score_mmbench(rows: Sequence[MmbenchRow]) -> MmbenchResult:
    """Score the rows, in any order.

    Raises:
        ValueError: a question without exactly one row for each of its rotations, or in two groups.
    """
    by_question: dict[int, list[MmbenchRow]] = defaultdict(list)
    for row in rows:
        by_question[row.index % _ROTATION_STEP].append(row)
    by_group: dict[str, list[bool]] = defaultdict(list)
    for question, rotations in by_question.items():
        _check_rotations(question, rotations)
        by_group[rotations[0].group].append(all(_is_right(row) for row in rotations))
    return MmbenchResult(
        circular_accuracy=share(sum(sum(right) for right in by_group.values()), len(by_question)),
        vanilla_accuracy=share(sum(_is_right(row) for row in rows if row.index < _ROTATION_STEP), len(by_question)),
        circular_by_group={group: share(sum(right), len(right)) for group, right in sorted(by_group.items())},
        num_questions=len(by_question),
        num_rows=len(rows),
        num_unreadable=sum(row.answer is None for row in rows),
    )


def _is_right(row: MmbenchRow) -> bool:
    return row.answer == row.label


def _check_rotations(question: int, rows: Sequence[MmbenchRow]) -> None:
    found = sorted(row.index // _ROTATION_STEP for row in rows)
    num_options = {row.num_options for row in rows}
    groups = {row.group for row in rows}
    if len(num_options) != 1 or len(groups) != 1:
        raise ValueError(f"question {question} has {sorted(num_options)} options and groups {sorted(groups)}")
    if found != list(range(rows[0].num_options)):
        raise ValueError(f"question {question} has {rows[0].num_options} options, but rotations {found}")
