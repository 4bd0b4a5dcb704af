"""The rollout actor: picks the engine and hands every call through."""

from collections.abc import Sequence
from typing import Any

from workers.actor_base import WorkerBase
from workers.protocols import RolloutEngine
from workers.rollout.spec import EngineSpec
from workers.types import Completions, GenerationRequest, joined
from workers.weight_sync.manifest import WeightManifest

_COLLECT_S = 1.0


class RolloutWorker(WorkerBase):
    """One engine in one process."""

    def __init__(self, *, name: str, spec: EngineSpec, num_threads: int, board: Any = None) -> None:
        super().__init__(num_threads=num_threads, name=name, board=board)
        self._engine = build_engine(name, spec)

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Queue requests."""
        self._engine.submit(requests)

    def collect(self, max_wait_s: float) -> Completions:
        """Run the engine until something has finished or the time is up."""
        return self._engine.collect(max_wait_s)

    def answer(self, requests: Sequence[GenerationRequest]) -> Completions:
        """All of them, in their order; nothing is kept of what they needed. Nothing else may be in flight."""
        self._engine.submit(requests)
        parts: list[Completions] = []
        while sum(map(len, parts)) < len(requests):
            parts.append(self._engine.collect(_COLLECT_S))
        self._engine.reset_caches()
        return joined(parts, ((r.uid, r.sample_index) for r in requests))

    def connect(self, *, address: str, port: int, rank_offset: int, group_size: int) -> None:
        """Join the group that weights are broadcast in."""
        self._engine.connect(address=address, port=port, rank_offset=rank_offset, group_size=group_size)

    def load_weights(self, manifest: WeightManifest) -> None:
        """Take over published weights, and be awake afterwards."""
        self._engine.wake_weights()
        self._engine.load_weights(manifest)
        self._engine.wake_cache()

    def checksums(self) -> dict[str, str]:
        """Digest of every tensor, to be compared between engines."""
        return self._engine.checksums()

    def sleep(self) -> None:
        """Leave the GPU to the policy until the next weights."""
        self._engine.sleep()

    def reset_caches(self) -> None:
        """Forget everything computed with earlier weights or prompts."""
        self._engine.reset_caches()


def build_engine(name: str, spec: EngineSpec) -> RolloutEngine:
    """Construct an engine of the kind that is told; its library is imported only here."""
    if spec.kind == "vllm":
        from workers.rollout.vllm_rollout import VllmEngine

        return VllmEngine(name, spec)
    from workers.rollout.transformers_rollout import TransformersEngine

    return TransformersEngine(name, spec)
