"""GDPO: GRPO that standardises each part of a reward by itself, so that none drowns in the others.

Liu et al. 2026, eq. 4 to 6, https://arxiv.org/abs/2601.05242
"""

from algorithms.grpo import Grpo


class Gdpo(Grpo):
    """A reward that names no parts is its own single part."""

    defaults = {**Grpo.defaults, "algorithm.parts": "whitened"}
