"""A scalar reward model: one number a response, in place of the language model's head (Bradley-Terry)."""

from algorithms.algorithm import Needs, ScalarHead
from algorithms.preference import Preference


class ScalarRm(Preference):
    """The reward model of RLHF."""

    @property
    def needs(self) -> Needs:
        """Pairs, and a head that gives each response its reward."""
        return Needs(data=("preferences",), responses="pairs", head=ScalarHead())
