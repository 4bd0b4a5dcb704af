"""Real workers in this process instead of in Ray's, so that whole loops run in seconds; engines that say one word."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.pool import PoolSpec, WorkerPool
from orchestrator.cluster.sync import SyncResult
from workers.models.loading import ModelSpec
from workers.policy import PolicySpec, PolicyWorker
from workers.reference import ReferenceWorker
from workers.rollout.spec import EngineSpec
from workers.types import Completion, EncodedPrompt, GenerationRequest

_ENGINE = EngineSpec(
    model=ModelSpec(path=""),
    tensor_parallel_size=1,
    max_model_len=256,
    max_num_seqs=1,
    max_images_per_prompt=1,
    gpu_memory_utilization=1.0,
    banned_token_ids=(),
    stop_token_ids=(),
    seed=0,
)
"""Of an engine that nobody starts."""


class InProcessPool(WorkerPool):
    """One policy rank (``one_rank`` is around it) and, where it is asked for, one reference worker."""

    def __init__(self, *, tokens_per_microbatch: int) -> None:
        self.plan = PlacementPlan(layout="separate", groups=(), workers=())
        self._spec = PoolSpec(
            engine=_ENGINE,
            engine_kind="none",
            tokens_per_microbatch=tokens_per_microbatch,
            share_prompts=True,
            num_threads=1,
        )
        self.policy, self.reference = [], []
        self.health: Any = SimpleNamespace(rss_gib=lambda: {"policy": 1.0})

    def start_policy(self, spec: PolicySpec) -> None:
        self.policy = [PolicyWorker(rank=0, world_size=1, spec=spec, num_threads=1)]
        self.policy[0].setup("127.0.0.1", 0)

    def start_reference(self, spec: ModelSpec) -> None:
        self.reference = [ReferenceWorker(spec=spec, num_threads=1)]

    def policy_call(self, method: str, *args: Any, deadline_s: float, **kwargs: Any) -> list[Any]:
        return [getattr(worker, method)(*args, **kwargs) for worker in self.policy]

    def policy_update(self, per_rank: Sequence[Sequence[Sequence[Any]]], *, deadline_s: float) -> list[Any]:
        return [worker.update(batches) for worker, batches in zip(self.policy, per_rank, strict=True)]

    def _each(
        self,
        role: str,
        actors: list[Any],
        method: str,
        sequences: Sequence[Any],
        deadline_s: float,
        options: dict[str, Any] | None = None,
    ) -> list[Any]:
        (plan,) = self.microbatches(sequences, num_ranks=1)
        rows = getattr(actors[0], method)([[sequences[i] for i in batch] for batch in plan], **(options or {}))
        found = dict(zip((i for batch in plan for i in batch), rows, strict=True))
        return [found[i] for i in range(len(sequences))]


class OneWord:
    """Engines that answer everything with one token, and take any weights."""

    num_restarts = 0

    def __init__(self, token: int) -> None:
        self._token = token
        self.log: list[str] = []

    def sync(self, policy_version: int, probe: Sequence[EncodedPrompt]) -> SyncResult:
        self.log.append(f"sync {policy_version}")
        return SyncResult(policy_version=policy_version, seconds=0.0, digest="ab" * 32, probe_gap=0.0)

    def sample(
        self, requests: Sequence[GenerationRequest], *, on_finished: Any = lambda completion: None
    ) -> list[Completion]:
        self.log.append("sample")
        said = [
            Completion(
                uid=request.uid,
                sample_index=request.sample_index,
                completion_ids=np.array([self._token], np.int32),
                rollout_logprobs=np.array([-1.0], np.float32),
                finish_reason="stop",
                policy_version=0,
                engine="one word",
            )
            for request in requests
        ]
        for completion in said:
            on_finished(completion)
        return said

    def sleep(self) -> None:
        self.log.append("sleep")

    def reset_caches(self) -> None:
        self.log.append("reset_caches")

    def require_full_sync(self) -> None:
        self.log.append("require_full_sync")
