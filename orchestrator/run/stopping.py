"""How a run is stopped once it has begun: with a sentence, and a checkpoint to go on from."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.cluster.waits import WaitTimeout, WorkerFailed, WorkerLost
from orchestrator.errors import GuardStop, RefusedInput

_log = logging.getLogger(__name__)


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
    return not (isinstance(stop, WorkerFailed) and stop.role == "policy" and len(stop.workers) > 1)
