"""DDPO (RLHF-V): DPO in which tokens that differ between the responses of a pair have a weight of their own."""

from algorithms.preference import Preference


class Ddpo(Preference):
    """Dense DPO."""

    smooths_labels = True
