"""The reference's section. The docstring under a field is its help on the command line."""

from typing import Literal

from algorithms.settings import Count, Section, Text


class ReferenceSection(Section):
    """The frozen model behind the KL penalty and behind preferences; it exists only where one of them asks for it."""

    mode: Literal["worker", "precomputed", "lora_off"] = "worker"
    """For preferences: workers that answer at every step, log-probs of all data computed before the first step, or
    the policy itself without its adapter."""
    num_ranks: Count = 1
    """Reference workers."""
    path: Text | None = None
    """Folder of precomputed log-probs, which runs can share; none = in the run folder."""
