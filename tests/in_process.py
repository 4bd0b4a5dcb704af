"""Real workers in this process instead of in Ray's, so that whole loops run in seconds; engines that say one word."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from orchestrator.cluster.placement import PlacementPlan, WorkerPlacement
from orchestrator.cluster.pool import PoolSpec, RoleWorkers, WorkerPool
from orchestrator.cluster.roles import ROLES, Role
from orchestrator.cluster.sync import SyncResult
from workers.models.loading import ModelSpec
from workers.rollout.spec import EngineSpec
from workers.types import Completion, Completions, EncodedPrompt, GenerationRequest

_ENGINE = EngineSpec(
    kind="transformers",
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
    """One worker of every role that is started; ranks have a group around them, see ``one_rank``."""

    def __init__(self, *, tokens_per_microbatch: int) -> None:
        workers = (_place(name) for name in ROLES)
        self.plan = PlacementPlan(layout="separate", groups=(), workers=tuple(workers))
        self.spec = PoolSpec(tokens_per_microbatch=tokens_per_microbatch, share_prompts=True, num_threads=1)
        self._roles = {name: _WorkersHere(role, self) for name, role in ROLES.items()}
        self._roles["rollout"].spec = _ENGINE
        self.health: Any = SimpleNamespace(rss_gib=lambda: {"policy": 1.0})

    def start_worker(self, role: Role, index: int, spec: Any) -> Any:
        rank = {"rank": index, "world_size": 1} if role.trainable else {}
        return _Here(role.actor_class()(name=f"{role.name}-{index}", spec=spec, num_threads=1, **rank))

    def results(self, refs: Sequence[Any], *, name: str, deadline_s: float, workers: Sequence[str]) -> list[Any]:
        return list(refs)


class _WorkersHere(RoleWorkers):
    def stop(self) -> None:
        self.actors = []


class _Here:
    """A worker whose methods are called as an actor's, and have answered at once."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def __getattr__(self, method: str) -> Any:
        if method == "rendezvous":  # of a group that is there already
            return SimpleNamespace(remote=lambda: ("127.0.0.1", 0))
        return SimpleNamespace(remote=getattr(self.worker, method))


def _place(role: str) -> WorkerPlacement:
    return WorkerPlacement(role=role, index=0, group="", bundle_indices=(0,), num_gpus=0.0, num_cpus=0.0)


class OneWord:
    """Engines that answer everything with one token, and take any weights."""

    num_restarts = 0

    def __init__(self, token: int) -> None:
        self._token = token
        self.log: list[str] = []

    def sync(self, policy_version: int, probe: Sequence[EncodedPrompt]) -> SyncResult:
        self.log.append(f"sync {policy_version}")
        return SyncResult(policy_version=policy_version, seconds=0.0, digest="ab" * 32, probe_gap=0.0)

    def sample(self, requests: Sequence[GenerationRequest], *, on_finished: Any = lambda arrived: None) -> Completions:
        self.log.append("sample")
        said = Completions.of(
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
        )
        on_finished(said)
        return said

    def sleep(self) -> None:
        self.log.append("sleep")

    def reset_caches(self) -> None:
        self.log.append("reset_caches")

    def require_full_sync(self) -> None:
        self.log.append("require_full_sync")
