"""What a kind of run has to show: the sentence above its report, and the questions that it answers."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.reporting.findings import Check
from orchestrator.reporting.run_record import RunRecord

Question = Callable[[RunRecord], Check]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKind:
    """One kind of run."""

    headline: Callable[[RunRecord], str]
    """The run in one sentence."""
    learning: tuple[Question, ...]
    """Is it learning? What should have risen, and whether it did beyond noise."""
    soundness: tuple[Question, ...]
    """Is it right? What must hold for the figures to mean what they say."""
    has_rollouts: bool
    """It keeps what the policy said."""
