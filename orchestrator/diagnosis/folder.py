"""The run folder: nobody else's, nothing planted in it, and what it holds is what this run would continue."""

from collections.abc import Iterator
from fcntl import LOCK_EX, LOCK_NB, flock
from typing import TYPE_CHECKING

from orchestrator.config.data_folders import is_store
from orchestrator.diagnosis.finding import Finding, Patient, existing
from orchestrator.diagnosis.rows import run_data
from orchestrator.run.checkpoint import refuse_another_run
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import option_identity, run_identity

if TYPE_CHECKING:
    from orchestrator.run.identity import Identity

_DATA = ("data.path", "data.eval_path")


def identity(patient: Patient) -> Iterator[Finding]:
    """Whether a run would begin here, go on, or be refused.

    Raises:
        RefusedInput: it would be, in the words of the run.
    """
    folder, config = RunFolder(patient.folder), patient.settled
    if not folder.root.is_dir():
        yield Finding("ok", f"{folder.root} is not there yet, in {existing(folder.root)}: the run begins in it")
        return
    folder.refuse_planted()
    if _is_locked(folder):
        yield Finding("FAIL", f"run.dir {str(folder.root)!r} is in use by another run", "wait for it, or use another")
        return
    found = refuse_another_run(folder, config, option_identity(config), whole=False)
    if found is None:
        yield Finding("ok", f"{folder.root} holds no checkpoint that this run goes on from: it begins afresh")
        return
    told, by = "its options", config
    if not by.embedded_task and by.model.path is not None:
        refuse_another_run(folder, config, _identity(patient, folder), whole=False)
        told = "its options and models" if by.offline else "its options, models and data"
    yield Finding("ok", f"{folder.root}: {found.name} is of this run by {told}, which goes on from it")


def _identity(patient: Patient, folder: RunFolder) -> "Identity":
    """As much as can be known without a file being imported into the run folder."""
    config = patient.settled
    if not config.offline:
        from orchestrator.training.answering import online_identity

        return online_identity(config, run_data(patient))
    if is_store(config.data.training_path):
        from orchestrator.data.stores import given_store

        rows = given_store(config, config.data.training_path).manifest.fingerprint
        made = run_identity(config, rows=rows, held_out=None)
        return {name: value for name, value in made.items() if name != "data.eval_path"}
    made = run_identity(config, rows="", held_out=None)
    # Which margins, facts or tables were made of it is known to the run alone.
    return {name: value for name, value in made.items() if name not in _DATA}


def _is_locked(folder: RunFolder) -> bool:
    lock = folder.root / ".lock"
    if not lock.is_file():
        return False
    with lock.open() as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return True
    return False
