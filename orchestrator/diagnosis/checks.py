"""All that the doctor looks at, in its order: cheap before dear, and nothing twice for one cause."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.config.tables import NamedRun

_WHOLE_DATA_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One subject."""

    subject: str
    looks: str
    """``MODULE:FUNCTION`` in this room; imported in the process that looks, as many of them load torch."""
    deadline_s: float = 120.0
    after: tuple[str, ...] = ()
    """Subjects that this one would repeat the fault of."""


@dataclass(frozen=True, slots=True)
class Job:
    """A check, of one of the runs or of the machine alone."""

    check: Check
    run: int | None = None
    name: str = ""
    """Of the run, where there are several."""

    @property
    def subject(self) -> str:
        """As a person reads it."""
        return f"{self.name}: {self.check.subject}" if self.name else self.check.subject


_MACHINE = (
    Check(subject="versions", looks="packages:versions", deadline_s=60.0),
    Check(subject="torchvision", looks="packages:vision_operators"),
    Check(subject="compiler", looks="packages:compiler", deadline_s=30.0),
    Check(subject="GPUs", looks="devices:gpus"),
    Check(subject="ports", looks="ports:free_ports", deadline_s=60.0),
)
_ALONE = (
    Check(subject="disk", looks="space:bare_disk", deadline_s=30.0),
    Check(subject="shared memory", looks="space:bare_shared_memory"),
)
_RUN = (
    Check(subject="files", looks="plan:files"),
    Check(subject="model", looks="plan:models", deadline_s=600.0, after=("files",)),
    Check(subject="plan", looks="plan:placed", after=("files", "model")),
    Check(subject="memory", looks="plan:memory", deadline_s=300.0, after=("files", "model", "plan")),
    Check(subject="disk", looks="space:disk", deadline_s=300.0, after=("files", "model", "plan")),
    Check(subject="shared memory", looks="space:shared_memory", deadline_s=300.0, after=("files", "model", "plan")),
    Check(subject="data", looks="rows:data", deadline_s=_WHOLE_DATA_S, after=("files", "model")),
    Check(subject="reward", looks="services:rewards", deadline_s=200.0, after=("files",)),
    Check(subject="judge", looks="services:judges", deadline_s=_WHOLE_DATA_S, after=("files", "model", "data")),
    Check(
        subject="run folder",
        looks="folder:identity",
        deadline_s=_WHOLE_DATA_S,
        after=("files", "model", "plan", "data"),
    ),
)
_MEASURED = (Check(subject="benchmark", looks="plan:measure", deadline_s=_WHOLE_DATA_S),)


def jobs_of(runs: Sequence[NamedRun]) -> Iterator[Job]:
    """What is looked at for these runs; for none, the machine."""
    yield from (Job(check) for check in (*_MACHINE, *(() if runs else _ALONE)))
    for number, run in enumerate(runs):
        yield from (Job(check, number, run.name) for check in (_RUN if run.measure is None else _MEASURED))
