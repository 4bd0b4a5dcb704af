"""Did a transfer set every parameter of the engine? vLLM's loaders say which they set; nobody else can know."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workers.weight_sync.manifest import SyncError


@contextmanager
def must_set_every_parameter(model: Any, *, full: bool) -> Iterator[None]:
    """Watch the ``load_weights`` of a vLLM model during the block.

    Args:
        full: False where only some tensors are sent; then nothing is required.
    Raises:
        SyncError: the calls left parameters unset.
    """
    expected = {name for name, _ in model.named_parameters()} if full else set()
    original, loaded = model.load_weights, set()

    def recording(weights: Any) -> set[str]:
        names = original(weights)
        loaded.update(names)
        return names

    model.load_weights = recording
    try:
        yield
    finally:
        # The recording is an attribute of the instance; the method is the class's.
        del model.load_weights
    unset = sorted(expected - loaded)
    if unset:
        raise SyncError(f"{len(unset)} engine parameters were not received: {', '.join(unset[:5])}")
