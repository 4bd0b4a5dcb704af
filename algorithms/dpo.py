"""DPO and the losses that differ from it in one line: hinge (SLiC) and IPO."""

from algorithms.preference import Preference


class Dpo(Preference):
    """Direct preference optimisation: the logistic loss of a pair."""

    smooths_labels = True


class Hinge(Preference):
    """The hinge loss of a pair (SLiC)."""


class Ipo(Preference):
    """The squared distance of a pair's log-ratios from a fixed one (IPO)."""
