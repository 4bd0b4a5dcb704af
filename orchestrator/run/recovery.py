"""Starting again inside one run, and stopping so that it can be gone on with.

A restart is a resume without a new driver. Steps after the checkpoint are cut off and repeated with the same seeds, so
the run that comes out equals one that nothing happened to.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from orchestrator.cluster.roles import ROLES
from orchestrator.cluster.waits import WaitTimeout, WorkerCannotStart, WorkerFailed, WorkerLost
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.run.folder import RunFolder
from orchestrator.run.log import run_log

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def with_restarts(run: Callable[[TrainConfig], _T], config: TrainConfig, folder: RunFolder) -> _T:
    """Call ``run`` until it ends without losing a worker that only a restart can bring back.

    Raises:
        GuardStop: ``run.max_restarts`` restarts were not enough, or a worker could not start in the first place; or
            what the run was begun on has changed in the meantime.
    """
    for restart in range(config.run.max_restarts + 1):
        try:
            return run(config)
        except WorkerFailed as failed:
            with run_log(folder.log, run=folder.root.name):
                _log.error("%s: %s", ", ".join(failed.workers), failed.told)
            raise
        except RefusedInput as refusal:
            if restart == 0:
                raise
            raise GuardStop(f"after a restart: {refusal}") from refusal
        except WorkerLost as lost:
            # One that never started would end where it did; a successor may only have met what was left behind.
            hopeless = isinstance(lost, WorkerCannotStart) and restart == 0
            with run_log(folder.log, run=folder.root.name):
                if lost.told:
                    _log.error("%s: %s", ", ".join(lost.workers), lost.told)
                if not hopeless and restart < config.run.max_restarts:
                    _log.warning("restart %d from the last checkpoint: lost %s", restart + 1, lost)
            if hopeless:
                raise GuardStop(f"cannot start {lost}") from lost
            if restart == config.run.max_restarts:
                raise GuardStop(f"lost {lost}, after run.max_restarts = {restart} restarts") from lost
            # A run that was told to start afresh has done so by now; its own checkpoints count.
            config = config.model_copy(update={"run": config.run.model_copy(update={"resume": "auto"})})
    raise AssertionError("the last round returns or raises")


@contextmanager
def leaving_checkpoint(save: Callable[[], None]) -> Iterator[None]:
    """Call ``save`` before a stop leaves the block.

    Input that only now turns out to be unusable stops the run too: a refusal would say that nothing was begun.

    Raises:
        GuardStop: for either reason, whether there could be a checkpoint or not.
    """
    try:
        yield
    except (GuardStop, RefusedInput) as stop:
        if _can_save(stop):
            try:
                save()
            except (GuardStop, WorkerLost, WaitTimeout) as error:
                _log.warning("no checkpoint could be saved: %s", error)
        if isinstance(stop, RefusedInput):
            raise GuardStop(str(stop)) from stop
        raise


def _can_save(stop: Exception) -> bool:
    """False where one of several ranks has failed: the others wait for it, and would not hear of anything else."""
    if not isinstance(stop, WorkerFailed) or len(stop.workers) < 2:
        return True
    role = ROLES.get(stop.role)
    return role is None or not role.trainable
