"""From a checked configuration to live workers: Ray, the pool, its engines and what trains."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import ray
from ray import cloudpickle

from orchestrator.cluster.choices import shares_prompts
from orchestrator.cluster.engines import Engines
from orchestrator.cluster.environment import worker_environment
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.pool import PoolSpec, WorkerPool
from orchestrator.cluster.reaper import reaped_processes
from orchestrator.cluster.resources import ray_is_running
from orchestrator.cluster.roles import ROLES, shares_base
from orchestrator.cluster.row_work import row_weights
from orchestrator.cluster.specs import model_spec, sampled_from
from orchestrator.cluster.sync import WeightSync
from orchestrator.cluster.waits import start_of, watched_by
from orchestrator.config.plugins import plugin_modules
from orchestrator.config.schema import TrainConfig
from orchestrator.config.sections import LOGPROB_TOLERANCE
from orchestrator.errors import RefusedInput
from workers.rollout.spec import EngineSpec
from workers.types import EncodedPrompt
from workers.weight_sync.manifest import SyncError
from workers.weight_sync.shared_memory import clear_exchange

OBJECT_STORE_BYTES = 1 << 30
"""Of a cluster without GPUs that a run starts on its own machine."""


@contextmanager
def ray_cluster(plan: PlacementPlan) -> Iterator[None]:
    """Connect to the running cluster, or start one on this machine that ends with this process."""
    for module in plugin_modules():  # a user's file, which is on no other node and in no path
        cloudpickle.register_pickle_by_value(module)
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
        store = None if gpu else OBJECT_STORE_BYTES
        # Said aloud, because without an address Ray joins any cluster that somebody has started on this machine.
        ray.init("local", num_cpus=os.cpu_count() or 1, object_store_memory=store, include_dashboard=False, **shared)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def worker_pool(config: TrainConfig, plan: PlacementPlan, spec: EngineSpec | None) -> Iterator[WorkerPool]:
    """Create the pool and start its engines, if it has any; what else the plan has follows stage by stage."""
    # Deferred: whoever only connects to a cluster needs no model.
    from transformers import AutoConfig

    from workers.multimodal.processor import fixed_side

    model = config.model
    shape = AutoConfig.from_pretrained(model.folder, trust_remote_code=model.trust_remote_code)
    pool = WorkerPool(
        plan,
        PoolSpec(
            tokens_per_microbatch=config.policy.tokens_per_microbatch,
            share_prompts=shares_prompts(config, model.folder),
            weights=row_weights(shape, tower_runs="vision" not in model.freeze),
            max_pixels=config.data.resized_above,
            fixed_side=fixed_side(model.folder, shape, trust_remote_code=model.trust_remote_code),
            num_threads=threads_each(config, plan, os.cpu_count() or 1),
            silent_after_s=config.run.silent_after_s,
            start_deadline_s=config.run.start_timeout_s,
        ),
    )
    try:
        with watched_by(pool.health):
            if spec is not None:
                pool.role("rollout").start(spec)
            yield pool
    finally:
        pool.close()


def threads_each(config: TrainConfig, plan: PlacementPlan, cores: int) -> int:
    """Of a worker: roles take turns, so one rank may use every core of a small machine; not beside engines at work."""
    at_once = ("policy", "rollout") if config.rollout.staleness else ("policy",)
    return max(1, cores // max(1, sum(len(plan.workers_of(role)) for role in at_once)))


def policy_engines(
    config: TrainConfig, folder: Path, pool: WorkerPool, *, probe: Callable[[], list[EncodedPrompt]]
) -> Engines:
    """The pool's engines, which follow its policy; see ``Engines``."""
    dtype = "bfloat16" if "bfloat16" in str(model_spec(config, config.model.folder).torch_dtype) else "float32"
    sync = WeightSync(
        pool,
        run_id=run_id(folder),
        # What rounding does to logits, a temperature below 1 makes larger.
        tolerance=config.sync.tolerance or LOGPROB_TOLERANCE[dtype] / min(1.0, config.rollout.temperature),
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


def start_roles(config: TrainConfig, pool: WorkerPool, found: Path | None, *, num_updates: Mapping[str, int]) -> None:
    """Start what a run trains with, on the weights and optimizer state that it continues from.

    Args:
        found: The checkpoint; None for a fresh start.
        num_updates: Optimizer steps that each trainable role has behind it, by its name; one that is not named steps
            with the policy.
    Raises:
        WorkerCannotStart: a rank said why.
    """
    asked = [pool.role(name) for name, role in ROLES.items() if role.spec is not None and role.in_run(config)]
    policy, tenants = pool.role("policy"), {w.role.name for w in asked if shares_base(config, w.role)}
    # Frozen ones load while the ranks meet; those on the policy's base come when it is there.
    for workers in sorted(asked, key=lambda workers: (workers.role.name in tenants, workers.role.trainable)):
        role, saved = workers.role, None
        workers.on = policy if role.name in tenants else None
        if found is not None and role.saved_in is not None:
            saved = found / role.saved_in
        with start_of(workers.names):
            assert role.spec is not None
            workers.start(role.spec(config, pool.role("rollout").spec, saved))
            if saved is not None:
                taken = num_updates.get(role.name, num_updates["policy"])
                deadline_s = config.rollout.timeout_s
                workers.shared("load_state", str(saved), num_steps=taken, deadline_s=deadline_s)
