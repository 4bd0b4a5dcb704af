"""Supervised learning: the tokens of a demonstration, or of the best stored response, become likelier."""

from algorithms.algorithm import Algorithm, Needs
from algorithms.policy_gradient import AlgorithmSection


class Sft(Algorithm):
    """Cross-entropy, aggregated as the online algorithms aggregate their losses."""

    sections = {"algorithm": AlgorithmSection}

    @property
    def needs(self) -> Needs:
        """Demonstrations, or stored responses."""
        return Needs(data=("demonstrations", "preferences"), responses="best")
