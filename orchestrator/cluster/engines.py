"""The rollout engines as a loop sees them: all there, all on verified weights, whatever happens to their processes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.cluster.feed import engine_name, generate
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.sync import SyncResult, WeightSync
from orchestrator.cluster.waits import WorkerLost, get
from workers.types import Completions, EncodedPrompt, GenerationRequest

_log = logging.getLogger(__name__)


class NoEngineLeft(RuntimeError):
    """Every engine was lost while the policy learned."""


class Engines:
    """Samples with every engine of a pool, and replaces those that die, hang or fall silent."""

    def __init__(
        self,
        pool: WorkerPool,
        sync: WeightSync,
        *,
        probe: Callable[[], list[EncodedPrompt]],
        deadline_s: float,
    ) -> None:
        self._pool, self._sync, self._probe = pool, sync, probe
        self._deadline_s = deadline_s
        self._policy_version = -1
        self._unsynced: set[int] = set()
        self.num_restarts = 0

    def sync(self, policy_version: int, probe: Sequence[EncodedPrompt]) -> SyncResult:
        """Bring every engine to ``policy_version`` and prove it."""
        result = self._sync.sync(policy_version, probe)
        self._policy_version = policy_version
        self._unsynced.clear()
        for fault in result.faults:
            _log.warning("sync %d repaired: %s", policy_version, fault)
        return result

    def sample(
        self,
        requests: Sequence[GenerationRequest],
        *,
        on_finished: Callable[[Completions], None] = lambda arrived: None,
    ) -> Completions:
        """Draw every request on the weights of the last sync; completions in the order of ``requests``."""
        if self._unsynced:
            self.revive()
        return generate(self._by_index(), requests, deadline_s=self._deadline_s, on_finished=on_finished, keeper=self)

    def sample_meanwhile(
        self,
        requests: Sequence[GenerationRequest],
        *,
        on_finished: Callable[[Completions], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        """Draw while the policy learns: engines that are left take over what a lost one held.

        Raises:
            NoEngineLeft: successors need weights, which the policy cannot send now; what came back has been told.
            Unwanted: ``is_wanted`` has said no; engines that were at it are replaced, so that none goes on with it.
        """
        left = {index: engine for index, engine in self._by_index().items() if index not in self._unsynced}
        if not left:
            raise NoEngineLeft
        generate(
            left,
            requests,
            deadline_s=self._deadline_s,
            on_finished=on_finished,
            keeper=_Meanwhile(self),
            is_wanted=is_wanted,
        )

    def make_ready(self) -> None:
        """Fresh caches, and the weights in use for successors: the policy has them still."""
        self.reset_caches()
        if self._unsynced:
            self.revive()

    def reset_caches(self) -> None:
        """Make every engine forget prefixes and encoded images, so that a step never depends on what came before."""
        self._on_each("reset_caches")

    def sleep(self) -> None:
        """Where engines share their GPU with the policy: leave it to the policy until the next sync."""
        if not self._pool.engine_spec.shares_device:
            return
        self._on_each("sleep")

    def require_full_sync(self) -> None:
        """Make the next sync carry every tensor, trainable or not."""
        self._sync.require_full()

    def lost(self, index: int, reason: str) -> None:
        """Start a successor of an engine; it samples again after the next verified sync."""
        self.num_restarts += 1
        _log.warning("engine %d is replaced: %s", index, reason)
        self._pool.role("rollout").replace(index)
        self._sync.require_full()
        self._unsynced.add(index)

    def revive(self) -> Mapping[int, Any]:
        """Bring successors to the weights in use; return all engines by index."""
        self.sync(self._policy_version, self._probe())
        return self._by_index()

    def _on_each(self, method: str) -> None:
        refs = {index: getattr(engine, method).remote() for index, engine in self._by_index().items()}
        for index, ref in refs.items():
            name = engine_name(index)
            try:
                get(ref, name=f"rollout: {method}", deadline_s=self._deadline_s, workers=[name])
            except WorkerLost as lost:
                self.lost(index, lost.reason)

    def _by_index(self) -> dict[int, Any]:
        return dict(enumerate(self._pool.role("rollout").actors))


@dataclass(frozen=True, slots=True)
class _Meanwhile:
    """Replaces engines that are lost while the policy learns; they sample after its next sync."""

    engines: Engines

    def lost(self, index: int, reason: str) -> None:
        self.engines.lost(index, reason)

    def revive(self) -> Mapping[int, Any]:
        raise NoEngineLeft
