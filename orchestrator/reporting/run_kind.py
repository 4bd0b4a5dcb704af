"""What a kind of run has to show: its questions, its curves, the phases of its step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.reporting.findings import CHANCE, Check
from orchestrator.reporting.run_record import RunRecord

Question = Callable[[RunRecord], Check]
Bound = tuple[str, Callable[[RunRecord], float]]
"""A dashed line: its label, and where a run has it."""

SHARE = (0.0, 1.0)
"""Vertical range of what is a share."""
CHANCE_LINE: Bound = ("chance", lambda record: CHANCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Which metrics go into one figure. A run that has none of them does not show it."""

    title: str
    names: Mapping[str, str]
    """Metric by label. A ``*`` at the end of both stands for every end that the run has."""
    bound: Bound | None = None
    y_range: tuple[float, float] | None = None
    prefer_log: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKind:
    """One kind of run. What is not in here does not appear in its report."""

    headline: Callable[[RunRecord], str]
    """The run in one sentence."""
    learning: tuple[Question, ...]
    """Is it learning? What should have risen, and whether it did beyond noise."""
    soundness: tuple[Question, ...]
    """Is it right? What must hold for the figures to mean what they say."""
    curves: tuple[Curve, ...]
    phases: tuple[str, ...]
    """Of a step, as ``time/<phase>_s`` names them."""
    has_rollouts: bool
    """It keeps what the policy said."""


POLICY_CURVES = (
    Curve(title="Gradient norm before clipping", names={"norm": "policy/grad_norm"}),
    Curve(title="Policy loss", names={"loss": "policy/loss"}),
    Curve(title="Entropy, nats a token", names={"entropy": "policy/entropy"}),
)
"""Of every policy that is trained."""
