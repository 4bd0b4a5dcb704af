"""How a run is stopped once it has begun: with a sentence, and a checkpoint to go on from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.errors import GuardStop, RefusedInput


@contextmanager
def leaving_checkpoint(save: Callable[[], None]) -> Iterator[None]:
    """Call ``save`` before a stop leaves the block.

    Input that only now turns out to be unusable stops the run too: a refusal would say that nothing was begun.

    Raises:
        GuardStop: for either reason.
    """
    try:
        yield
    except (GuardStop, RefusedInput) as stop:
        save()
        if isinstance(stop, RefusedInput):
            raise GuardStop(str(stop)) from stop
        raise
