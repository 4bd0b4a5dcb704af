"""KTO: responses that somebody found desirable or not, each by itself, against a baseline of the whole step."""

from typing import Any

from algorithms.algorithm import Needs
from algorithms.preference import Preference


class Kto(Preference):
    """Kahneman-Tversky optimisation."""

    @property
    def needs(self) -> Needs:
        """Labelled responses, scored by what the policy thinks of them beyond the reference."""
        return Needs(data=("preferences",), responses="labels", reference=True)

    def check(self, config: Any) -> None:
        """Refuse what its baseline cannot be made with."""
        if config.reference.mode == "precomputed":
            raise ValueError("reference.mode = 'precomputed' cannot serve kto, whose baseline changes with every batch")
        if config.policy.train_batch_size < 2:
            raise ValueError("policy.train_batch_size = 1 must be at least 2 for kto: its baseline mixes instructions")
