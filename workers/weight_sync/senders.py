"""The trainer's side of a weight transfer, one class a transport; every rank calls every method together.

open ─► for each policy version: publish ─► send (NCCL), while the engines receive ─► release (IPC)
"""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from torch import Tensor

from workers.weight_sync.manifest import WeightManifest
from workers.weight_sync.shared_memory import WeightFile

Named = Callable[[], Iterable[tuple[str, Tensor]]]
"""Starts a pass over ``(checkpoint name, whole tensor)``; gathering is collective, so every rank must finish it."""


class WeightSender(Protocol):
    """Announces one policy version's weights."""

    def publish(self, named: Named, *, policy_version: int, full: bool) -> WeightManifest | None:
        """Announce names and content; None where this rank has nothing to tell an engine."""
        ...


@runtime_checkable
class Broadcaster(WeightSender, Protocol):
    """Engines receive only while the trainer sends."""

    def send(self) -> None:
        """Move what was announced; returns once the engines have received."""
        ...


@runtime_checkable
class Lender(WeightSender, Protocol):
    """Engines read a copy that the trainer keeps for them."""

    def release(self) -> None:
        """Every engine has received: give memory back."""
        ...


class SharedMemorySender:
    """A file in shared memory; the engines read it by themselves, and the next version takes the same memory."""

    def __init__(self, *, rank: int, run_id: str) -> None:
        self._file = WeightFile(run_id) if rank == 0 else None

    def publish(self, named: Named, *, policy_version: int, full: bool) -> WeightManifest | None:
        """Rank 0 writes, the others only help gathering."""
        if self._file is not None:
            return self._file.write(named(), policy_version=policy_version, full=full)
        for _ in named():
            pass
        return None
