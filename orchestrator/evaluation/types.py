"""What an evaluation returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSample:
    """One held-out response."""

    uid: str
    prompt_text: str
    completion_text: str
    verdict: str | None
    """What it comes to: ``"1"`` or ``"2"`` of a judgement, else its answer; None where that is not clear."""
    label: str | None
    right: bool = False
    """Whether that is the label."""
    source: str = ""
    """Of the data, where there are several."""
    media: tuple[tuple[str, str], ...] = ()
    """Path and SHA-256 of each image."""


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
    """Prompts, pairs of responses where they ask for judgements."""
    samples: tuple[EvalSample, ...]
    judging: bool = True
    """Whether the prompts ask which of two responses is better."""
    further: Mapping[str, float] = field(default_factory=dict)
    """Figures besides, named as in metric rows: of several samples a prompt, of each source, of rewards."""

    @property
    def unreadable_frac(self) -> float:
        """Share of the responses without a clear verdict."""
        return sum(sample.verdict is None for sample in self.samples) / max(1, len(self.samples))
