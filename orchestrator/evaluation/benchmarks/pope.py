"""POPE: does the model see objects that are not there? Invariant: an unanswered row is wrong and stays in every count.

Precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN), with "yes" as the positive answer.
An unanswered row is neither a yes nor a no: with label yes it is a missed object (FN), with label no it is no false
alarm, and in both cases it is not right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.evaluation.answers import YesNo, share


@dataclass(frozen=True, slots=True, kw_only=True)
class PopeRow:
    """One question about one object."""

    answer: YesNo | None
    """What was read in the response, by ``parse_yes_no`` or ``pope_official``; None where it does not say."""
    label: YesNo


@dataclass(frozen=True, slots=True, kw_only=True)
class PopeResult:
    """Figures of one split (random, popular or adversarial): shares in [0, 1], counts of rows.

    A share of nothing is 0: precision without a yes, recall without a positive label, F1 without either, all of an
    empty input.

    Source: Li et al. 2023 (POPE), its five metrics, https://arxiv.org/abs/2305.10355. VL-RLHF, whose script follows
        the released one, divides by zero in those four cases, and reads a response that says nothing as yes.
    """

    accuracy: float
    """Right answers among all rows, unanswered ones included."""
    precision: float
    """Positive labels among the rows answered yes."""
    recall: float
    """Rows answered yes among the positive labels, unanswered ones included."""
    f1: float
    yes_ratio: float
    """Rows answered yes among all rows; 0.5 is unbiased on the balanced splits."""
    num_rows: int
    num_unanswered: int


def score_pope(rows: Sequence[PopeRow]) -> PopeResult:
    """Score the rows of one split."""
    said_yes = sum(row.answer == "yes" for row in rows)
    positives = sum(row.label == "yes" for row in rows)
    hits = sum(row.answer == row.label == "yes" for row in rows)
    return PopeResult(
        accuracy=share(sum(row.answer == row.label for row in rows), len(rows)),
        precision=share(hits, said_yes),
        recall=share(hits, positives),
        # 2 TP + FP + FN = (TP + FP) + (TP + FN)
        f1=share(2 * hits, said_yes + positives),
        yes_ratio=share(said_yes, len(rows)),
        num_rows=len(rows),
        num_unanswered=sum(row.answer is None for row in rows),
    )


def pope_official(text: str) -> YesNo:
    """Read a response as the released script does, to compare with published numbers; never unanswered.

    Only the text before the first full stop counts, without commas, cut at single spaces; "No", "no" or "not" among
    the words is no and everything else is yes: "NO", "There isn't any dog." and the empty response are yes.

    Source: POPE, evaluate.py, as VL-RLHF has it in pope/eval.py.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"
