"""What an architecture's record says of its vision tower."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VisionTower:
    """Where a model has its vision tower, and what it reads of the tower's output."""

    path: str
    """Of the module, in the trainer's names."""
    gives: tuple[str, ...] = ("last_hidden_state",)
    """Fields of its output that the model reads; of ``hidden_states`` the layers that its configuration names."""
    bridges: tuple[str, ...] = ()
    """Where the bridge lies inside the tower: the module, or list of modules, that makes each of ``gives``."""
