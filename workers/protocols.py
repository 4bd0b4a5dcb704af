"""What the driver may ask of a rollout engine, whichever library is behind it."""

from collections.abc import Sequence
from typing import Protocol

from workers.types import Completions, GenerationRequest
from workers.weight_sync.manifest import WeightManifest


class RolloutEngine(Protocol):
    """A generation engine fed continuously.

    Requests are queued by ``submit`` and come back from ``collect`` as they finish, in any order; new ones may
    be submitted while others run. The engine makes progress only inside ``collect``.
    """

    name: str

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Queue requests; their order is the order of scheduling."""
        ...

    def collect(self, max_wait_s: float) -> Completions:
        """Run until something has finished or ``max_wait_s`` has passed; empty when nothing is in flight."""
        ...

    def connect(self, *, address: str, port: int, rank_offset: int, group_size: int) -> None:
        """Join the group that weights are broadcast in.

        Raises:
            SyncError: the engine knows no such transport.
        """
        ...

    def load_weights(self, manifest: WeightManifest) -> None:
        """Take over published weights and forget everything computed with the old ones.

        Raises:
            SyncError: what arrived is not what was announced.
        """
        ...

    def sleep(self) -> None:
        """Give the GPU's memory up until new weights come; nothing is in flight."""
        ...

    def wake_weights(self) -> None:
        """Make room for weights, before they are loaded."""
        ...

    def wake_cache(self) -> None:
        """Make room for everything else; the engine may sample again."""
        ...

    def reset_caches(self) -> None:
        """Forget everything computed so far: prefixes, processed and encoded media."""
        ...

    def checksums(self) -> dict[str, str]:
        """Digest of every tensor in the engine's own layout, to be compared with another engine of the same kind."""
        ...
