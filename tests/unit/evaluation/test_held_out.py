"""Figures of a held-out evaluation: an answer without a verdict is wrong, and leans to neither side."""

from collections.abc import Sequence

import pytest

from orchestrator.evaluation.held_out import judged
from orchestrator.evaluation.types import EvalResult
from orchestrator.pipeline.summary import control_lines
from orchestrator.training.session import judged_evaluation
from workers.types import Prompt

_FIRST, _SECOND, _NONE, _BOTH = "<answer>1</answer>", "<answer>2</answer>", "I cannot tell", "<answer>1 or 2</answer>"


def _result(texts: Sequence[str]) -> EvalResult:
    """The first response is the right one everywhere."""
    return judged([Prompt(uid=str(i), messages=(), media=(), label="1") for i in range(len(texts))], texts)


@pytest.mark.parametrize(
    ("texts", "first", "unreadable", "accuracy"),
    [
        ([_FIRST, _SECOND, _FIRST, _FIRST], 0.75, 0.0, 0.75),
        ([_FIRST, _SECOND, _NONE, _BOTH], 0.5, 0.5, 0.25),
        ([_FIRST, _NONE, _BOTH, _BOTH], 1.0, 0.75, 0.25),
    ],
)
def test_the_lean_is_of_clear_verdicts_and_the_others_have_a_figure_of_their_own(
    texts: list[str], first: float, unreadable: float, accuracy: float
) -> None:
    assert judged_evaluation(_result(texts)).figures == {
        "eval/accuracy": accuracy,
        "eval/first_position_rate": first,
        "eval/unreadable_frac": unreadable,
    }


def test_without_a_verdict_there_is_no_lean() -> None:
    result = _result([_NONE, _BOTH])
    assert judged_evaluation(result).figures == {"eval/accuracy": 0.0, "eval/unreadable_frac": 1.0}
    assert control_lines(result) == ["100.0% of its answers hold no clear verdict."]
