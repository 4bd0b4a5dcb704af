"""One phase of a step: what it takes at best, and in our plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.cluster.roofline.hardware import PEAK, Machine, Reach
from orchestrator.cluster.roofline.work import Work, busiest, seconds


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of a step, after the one before it."""

    name: str
    best: Work
    """On one GPU, balanced over all that could take part."""
    ours: Work
    """On the GPU that all others wait for."""
    gpus: int
    """That have the work in our plan."""
    peak_s: float
    """Least time at the data sheets' numbers."""
    bound_s: float
    """Least time at what anybody gets of them."""
    ours_s: float
    """Least time of our plan of it, at the same."""
    bound_by: str
    """The resource that bounds our plan."""
    excess: Mapping[str, float] = field(default_factory=dict)
    """Part of our work's FLOPs that the best plan has not, by what it is for."""

    @property
    def reached(self) -> float:
        """Share of the bound that our plan reaches; 1 where there is nothing to do."""
        return 1.0 if self.ours_s <= self.bound_s else self.bound_s / self.ours_s


def phase_of(
    name: str,
    best: Work,
    ours: Work,
    machine: Machine,
    reach: Reach,
    *,
    gpus: int,
    excess: Mapping[str, float] | None = None,
) -> Phase:
    """A phase whose resources all work at the same time."""
    return Phase(
        name=name, best=best, ours=ours, gpus=gpus, excess=excess or {},
        peak_s=seconds(best, machine, PEAK), bound_s=seconds(best, machine, reach),
        ours_s=seconds(ours, machine, reach), bound_by=busiest(ours, machine, reach),
    )  # fmt: skip
