"""What an evaluation returns."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSample:
    """One held-out judgement."""

    uid: str
    prompt_text: str
    completion_text: str
    verdict: str | None
    """``"1"``, ``"2"``, or None where the response holds no clear answer."""
    label: str | None
    source: str = ""
    """Data source of the prompt; empty where a run has but one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """Held-out figures, shares in [0, 1]."""

    accuracy: float
    accuracy_shuffled_images: float | None
    """With the images shuffled among the pairs: a judge that looks falls to chance. None where not measured."""
    first_position_rate: float | None
    """Share of the verdicts that are for the response shown first; 0.5 is unbiased on balanced data, None where there
    is no verdict."""
    num_pairs: int
    samples: tuple[EvalSample, ...]

    @property
    def unreadable_frac(self) -> float:
        """Share of the responses without a clear verdict."""
        return sum(sample.verdict is None for sample in self.samples) / max(1, len(self.samples))
