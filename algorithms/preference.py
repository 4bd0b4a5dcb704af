"""What all algorithms share that learn from preferences: their settings, what they need and what they refuse."""

from typing import Any, Literal

from pydantic import Field

from algorithms.algorithm import Algorithm, Needs
from algorithms.settings import Section


class PreferenceSection(Section):
    """Offline learning from preferences."""

    beta: float = Field(default=0.1, gt=0.0)
    """How far the policy may move from the reference: larger is nearer, 1/nats."""
    label_smoothing: float = Field(default=0.0, ge=0.0, le=0.5)
    """Probability that a pair's labels are swapped; for dpo and ddpo."""
    score_margin: float = Field(default=0.0, ge=-1.0)
    """Least difference of scores that makes a pair; -1 = only the pairs with an instruction's largest difference."""
    ipo_reduction: Literal["mean", "sum"] = "mean"
    """Whether ipo compares log-probs per token or of whole responses."""
    ddpo_mode: Literal["paper", "rlhf_v_recipe", "vl_rlhf"] = "paper"
    """Which weights ddpo gives to the tokens in which the responses of a pair differ."""
    desirable_weight: float = Field(default=1.0, gt=0.0)
    """Weight of desirable responses in kto."""
    undesirable_weight: float = Field(default=1.0, gt=0.0)
    """Weight of undesirable responses in kto."""

    def check(self, config: Any) -> None:
        """Refuse labels that are smoothed for nobody, and a margin that is neither a difference nor -1."""
        if self.label_smoothing and not getattr(config.learner, "smooths_labels", False):
            raise ValueError(
                f"preference.label_smoothing = {self.label_smoothing} has no meaning for algo = {config.algo!r}"
            )
        if -1 < self.score_margin < 0:
            raise ValueError(
                f"preference.score_margin = {self.score_margin} must be at least 0, or -1 for the largest gap only"
            )


class Preference(Algorithm):
    """Learning from stored responses that somebody compared."""

    sections = {"preference": PreferenceSection}
    smooths_labels = False
    """Whether ``preference.label_smoothing`` has a meaning."""

    @property
    def preference(self) -> PreferenceSection:
        """The settings that all of the family share."""
        section = self.settings["preference"]
        assert isinstance(section, PreferenceSection)
        return section

    @property
    def needs(self) -> Needs:
        """Pairs, scored by what the policy thinks of them beyond the reference."""
        return Needs(data=("preferences",), responses="pairs", reference=True)
