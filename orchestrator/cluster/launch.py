"""From a checked configuration to live workers: Ray, the pool, its policy and its engines."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import ray

from algorithms.records import PLAIN
from orchestrator.cluster.choices import engine_kind, shares_prompts
from orchestrator.cluster.engines import Engines
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.pool import PoolSpec, WorkerPool
from orchestrator.cluster.reaper import reaped_processes
from orchestrator.cluster.resources import ray_is_running
from orchestrator.cluster.specs import model_spec, policy_spec, sampled_from
from orchestrator.cluster.sync import WeightSync
from orchestrator.cluster.waits import start_of, watched_by
from orchestrator.cluster.worker_environment import worker_environment
from orchestrator.config.plugins import plugin_modules
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from workers.rollout.spec import EngineSpec
from workers.types import EncodedPrompt
from workers.weight_sync.manifest import SyncError
from workers.weight_sync.shared_memory import clear_exchange

_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
_OBJECT_STORE_BYTES = 1 << 30


@contextmanager
def ray_cluster(plan: PlacementPlan) -> Iterator[None]:
    """Connect to the running cluster, or start one on this machine that ends with this process."""
    for module in plugin_modules():  # a user's file, which is on no other node and in no path
        ray.cloudpickle.register_pickle_by_value(module)
    gpu = any(worker.num_gpus for worker in plan.workers)
    variables = worker_environment(1, gpu=gpu)
    shared = {"log_to_driver": False, "logging_level": logging.WARNING, "runtime_env": {"env_vars": variables}}
    if ray_is_running():
        # A job's environment may name a variable of ours; both count, and ours wins.
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
        ray.init(**shared)
        try:
            yield
        finally:
            ray.shutdown()
        return
    variables["GLOO_SOCKET_IFNAME"] = "lo"  # the ranks' own connections, as Ray's: see orchestrator/cluster/__init__.py
    with reaped_processes():
        store = None if gpu else _OBJECT_STORE_BYTES
        # Said aloud, because without an address Ray joins any cluster that somebody has started on this machine.
        ray.init("local", num_cpus=os.cpu_count() or 1, object_store_memory=store, include_dashboard=False, **shared)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def worker_pool(config: TrainConfig, plan: PlacementPlan, spec: EngineSpec | None) -> Iterator[WorkerPool]:
    """Create the pool and start its engines, if it has any; policy and reference follow stage by stage."""
    ranks = max(1, len(plan.workers_of("policy")))
    pool = WorkerPool(
        plan,
        PoolSpec(
            engine=spec,
            engine_kind=engine_kind(config),
            tokens_per_microbatch=config.policy.tokens_per_microbatch,
            share_prompts=shares_prompts(config, config.model.folder),
            # Roles take turns, so one rank may use every core of a small machine.
            num_threads=max(1, (os.cpu_count() or 1) // ranks),
            silent_after_s=config.run.silent_after_s,
            start_deadline_s=config.run.start_timeout_s,
        ),
    )
    try:
        with watched_by(pool.health):
            pool.start_engines()
            yield pool
    finally:
        pool.close()


def policy_engines(
    config: TrainConfig, folder: Path, pool: WorkerPool, *, probe: Callable[[], list[EncodedPrompt]]
) -> Engines:
    """The pool's engines, which follow its policy; see ``Engines``."""
    dtype = "bfloat16" if "bfloat16" in str(model_spec(config, config.model.folder).torch_dtype) else "float32"
    sync = WeightSync(
        pool,
        run_id=run_id(folder),
        # What rounding does to logits, a temperature below 1 makes larger.
        tolerance=config.sync.tolerance or _TOLERANCE[dtype] / min(1.0, config.rollout.temperature),
        deadline_s=config.rollout.timeout_s,
        sampling=sampled_from(config, pool.engine_spec.banned_token_ids),
    )
    return Engines(pool, sync, probe=probe, deadline_s=config.rollout.timeout_s)


def clear_leftovers(folder: Path) -> None:
    """Remove the weights that an earlier, killed driver of this run left in shared memory.

    Raises:
        RefusedInput: what bears their folder's name is not this user's.
    """
    try:
        clear_exchange(run_id(folder))
    except SyncError as error:
        raise RefusedInput(str(error)) from error


def run_id(folder: Path) -> str:
    """Names the run in a folder to its workers, the same after a resume."""
    return uuid5(NAMESPACE_URL, str(folder.resolve())).hex[:12]


def start_policy(config: TrainConfig, pool: WorkerPool, found: Path | None, *, num_updates: int) -> None:
    """Start the policy on the weights and optimizer state that the run continues from.

    Args:
        found: The checkpoint; None for a fresh start.
        num_updates: Optimizer steps that it has behind it.
    Raises:
        WorkerCannotStart: a rank said why.
    """
    sampling = sampled_from(config, pool.engine_spec.banned_token_ids) if config.online else PLAIN
    with start_of([f"policy-{place.index}" for place in pool.plan.workers_of("policy")]):
        pool.start_policy(policy_spec(config, str(found / "policy") if found else None, sampling))
        if found:
            pool.policy_call("load_state", str(found), num_steps=num_updates, deadline_s=config.rollout.timeout_s)
