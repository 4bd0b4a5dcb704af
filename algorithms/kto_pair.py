"""KTO over pairs as VL-RLHF has it: a loss that couples the whole step."""

from algorithms.preference import Preference


class KtoPair(Preference):
    """KTO over pairs, for comparison with VL-RLHF."""
