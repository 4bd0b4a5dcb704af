"""The states of an engine that shares its GPU: what it holds while the policy trains, and in which order it comes back.

    awake ── sleep ──► asleep ── wake_weights ──► loading ── wake_cache ──► awake

Weights come back before the cache, so that new ones arrive while the GPU still has room for the transfer.
"""

from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor, nn

State = Literal["awake", "asleep", "loading"]
_OF_THE_CACHE = "kv_cache"
"""Where vLLM's attention has its share of the cache, which sleeps by itself."""


class SleepCycle:
    """Refuses every step out of order: an engine that samples without its weights does not notice by itself."""

    def __init__(self, state: State) -> None:
        self.state: State = state

    def sleep(self) -> bool:
        """Everything leaves the GPU. Returns False where it has left already."""
        if self.state == "asleep":
            return False
        self.require("awake", "sleep")
        self.state = "asleep"
        return True

    def wake_weights(self) -> bool:
        """Room for the weights. Returns False where there is: awake, or after a transfer that failed."""
        if self.state != "asleep":
            return False
        self.state = "loading"
        return True

    def wake_cache(self) -> bool:
        """Room for the cache; the engine may sample. Returns False for an engine that is awake and has it."""
        if self.state == "awake":
            return False
        self.require("loading", "wake its cache")
        self.state = "awake"
        return True

    def require(self, state: State, action: str) -> None:
        """
        Raises:
            RuntimeError: the engine is in another state.
        """
        if self.state != state:
            raise RuntimeError(f"an engine that is {self.state} cannot {action}; it must be {state}")


def loose_tensors(model: nn.Module) -> list[str]:
    """Attributes that hold tensors of the model's own which are neither parameters nor buffers, as module.attribute.

    No transfer brings these, and vLLM's sleep without a copy keeps buffers alone: what was in them is gone.
    """
    kept = [*model.parameters(), *model.buffers()]
    storages, devices = {t.untyped_storage().data_ptr() for t in kept}, {t.device for t in kept}

    def loose(tensor: Tensor) -> bool:
        place = tensor.untyped_storage().data_ptr()
        return tensor.numel() > 0 and tensor.device in devices and place not in storages

    return [
        f"{name}.{attribute}".removeprefix(".")
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if attribute not in ("_parameters", "_buffers", _OF_THE_CACHE) and any(map(loose, _tensors(value)))
    ]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)
