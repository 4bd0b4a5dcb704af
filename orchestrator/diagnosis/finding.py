"""What a check says: a verdict, what was found, what to do. And what it is told: the run that is to be started."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orchestrator.config.schema import TrainConfig
from orchestrator.config.tables import NamedRun
from orchestrator.errors import one_line

if TYPE_CHECKING:  # most checks need neither
    from orchestrator.cluster.placement import PlacementPlan
    from orchestrator.cluster.resources import ClusterResources

Verdict = Literal["ok", "warn", "FAIL"]
"""``warn`` costs a feature or speed, ``FAIL`` keeps the run from starting or from ending."""
GIB = 2**30
_MOST_CHARS = 600


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer."""

    verdict: Verdict
    found: str
    todo: str = ""
    """What a person can do about it; nothing where all is well."""

    @property
    def told(self) -> str:
        """Both, in one line."""
        return one_line(f"{self.found}: {self.todo}" if self.todo else self.found, most=_MOST_CHARS)


class Patient:
    """One run of the command line."""

    def __init__(self, runs: Sequence[NamedRun], number: int) -> None:
        """
        Args:
            runs: All of the command line.
            number: Of this one among them.
        """
        self.runs, self.run, self._number = runs, runs[number], number

    @property
    def before(self) -> "list[Patient]":
        """The runs that come earlier and train."""
        return [Patient(self.runs, n) for n in range(self._number) if self.runs[n].measure is None]

    @cached_property
    def config(self) -> TrainConfig:
        """As it was asked for, the format of its data recognised."""
        from orchestrator.data.recognising import with_format

        return with_format(self.run.config)

    @cached_property
    def known(self) -> TrainConfig:
        """The same, without what other runs make before it."""
        from orchestrator.data.recognising import with_format
        from orchestrator.pipeline.several import known_run

        return with_format(known_run(self.run, list(self.runs)))

    @cached_property
    def placed(self) -> "tuple[ClusterResources, PlacementPlan]":
        """Where it would run.

        Raises:
            RefusedInput: with the sum that does not fit.
        """
        from orchestrator.cluster.plan import plan_run
        from orchestrator.pipeline.run import as_placed

        return plan_run(as_placed(self.config, self.known))

    @cached_property
    def settled(self) -> TrainConfig:
        """``known`` with the number format that its place decides on."""
        from orchestrator.cluster.choices import settled_dtype

        return settled_dtype(self.known, self.placed[1])

    @property
    def folder(self) -> Path:
        """The run folder; perhaps not there yet."""
        return Path(self.run.config.run.dir)


def existing(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
