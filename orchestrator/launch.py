"""From a checked configuration to a live session: specs for the workers, Ray, the pool, the reward service."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import ray

from algorithms.preference_registry import PREFERENCE_ALGORITHMS
from orchestrator.checkpoint import Progress
from orchestrator.config.schema import TrainConfig
from orchestrator.engines import Engines
from orchestrator.offline.groups import pair_kind
from orchestrator.placement import PlacementPlan
from orchestrator.pool import PoolSpec, WorkerPool
from orchestrator.preflight import RunData, engine_kind, ray_is_running, shares_prompts, sync_backend
from orchestrator.reaper import reaped_processes
from orchestrator.reward_service import RewardService
from orchestrator.run_folder import RunFolder
from orchestrator.run_start import RunStart, started_run
from orchestrator.scoring import RewardClient
from orchestrator.session import Session, first_prompts
from orchestrator.sync import PROBE_LENGTH, WeightSync
from orchestrator.waits import watched_by
from orchestrator.worker_environment import worker_environment
from workers.backends.schedule import OptimizerSpec, Schedule
from workers.models.loading import ModelSpec
from workers.models.lora import LoraSpec
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.objectives import LossSpec
from workers.policy import PolicySpec
from workers.rollout.spec import EngineSpec
from workers.types import EncodedPrompt
from workers.weight_sync.shared_memory import clear_exchange

_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
_OBJECT_STORE_BYTES = 1 << 30


@contextmanager
def ray_cluster(plan: PlacementPlan) -> Iterator[None]:
    """Connect to the running cluster, or start one on this machine that ends with this process."""
    gpu = any(worker.num_gpus for worker in plan.workers)
    shared = {
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        "runtime_env": {"env_vars": worker_environment(1, gpu=gpu)},
    }
    if ray_is_running():
        # A job's environment may name a variable of ours; both count, and ours wins.
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
        ray.init(**shared)
        try:
            yield
        finally:
            ray.shutdown()
        return
    with reaped_processes():
        store = None if gpu else _OBJECT_STORE_BYTES
        # Said aloud, because without an address Ray joins any cluster that somebody has started on this machine.
        ray.init("local", num_cpus=os.cpu_count() or 1, object_store_memory=store, include_dashboard=False, **shared)
        try:
            yield
        finally:
            ray.shutdown()


def model_spec(config: TrainConfig, path: str) -> ModelSpec:
    """How every role loads the model."""
    return ModelSpec(
        path=path,
        dtype=config.model.dtype,
        attention=config.model.attention,
        trust_remote_code=config.model.trust_remote_code,
        share_prompts=shares_prompts(config, path),
    )


def lora_spec(config: TrainConfig, saved: str | None) -> LoraSpec | None:
    """The adapters of the policy, continued from the folder ``saved``; None where the weights are trained."""
    rank, alpha = config.model.lora_rank, config.model.lora_alpha
    if rank is None:
        return None
    return LoraSpec(
        rank=rank,
        # With a fixed ratio the learning rate need not follow the rank.
        alpha=2 * rank if alpha is None else alpha,
        seed=config.run.seed,
        quantize=config.model.quantize,
        saved=saved,
    )


def policy_spec(config: TrainConfig, saved: str | None) -> PolicySpec:
    """What a policy rank needs to start from ``model.path``, or where the checkpoint's ``policy/`` at ``saved`` was."""
    optimizer = config.optimizer
    per_step = 1 if config.algo in PREFERENCE_ALGORITHMS else config.updates_per_step
    assert config.model.path is not None
    lora = lora_spec(config, saved)
    return PolicySpec(
        # An adapter's checkpoint has no weights of its own: its base is loaded again.
        model=model_spec(config, saved if saved is not None and lora is None else config.model.path),
        source=config.model.path,
        optimizer=OptimizerSpec(
            zero_stage=config.policy.zero_stage,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
            max_grad_norm=optimizer.max_grad_norm,
            offload_optimizer=config.policy.offload_optimizer,
            schedule=Schedule(
                peak_lr=optimizer.lr,
                kind=optimizer.schedule,
                total_steps=config.run.steps * per_step,
                warmup_frac=optimizer.warmup_frac,
                min_lr_frac=optimizer.min_lr_frac,
            ),
        ),
        loss=loss_spec(config),
        freeze=config.model.freeze,
        gradient_checkpointing=config.model.gradient_checkpointing,
        lora=lora,
    )


def loss_spec(config: TrainConfig) -> LossSpec:
    """What the policy minimises."""
    algorithm, preferences = config.algorithm, config.offline
    if config.algo == "sft":
        return LossSpec(kind="sft")
    if preferences is not None:
        return LossSpec(
            kind=preferences.loss if preferences.loss in ("bradley_terry", "critique_rm") else "preference",
            pair_kind=pair_kind(preferences, config.preference),
            label_smoothing=config.preference.label_smoothing,
            reward_head=config.critique_rm.head if preferences.writes_critiques else "linear",
            critique_request=config.critique_rm.request if preferences.writes_critiques else None,
        )
    return LossSpec(
        kind="policy_gradient",
        clip_low=algorithm.clip_low,
        clip_high=algorithm.clip_high,
        preclip_min=algorithm.preclip_min,
        preclip_max=algorithm.preclip_max,
        tis_cap=algorithm.tis_cap,
    )


def engine_spec(
    config: TrainConfig, plan: PlacementPlan, encoder: PromptEncoder, *, longest_prompt: int, max_images: int
) -> EngineSpec:
    """How every rollout engine is built."""
    assert config.model.path is not None
    return EngineSpec(
        model=model_spec(config, config.model.path),
        tensor_parallel_size=config.rollout.tensor_parallel_size,
        max_model_len=longest_prompt + max(config.rollout.max_new_tokens, PROBE_LENGTH) + 1,
        max_num_seqs=config.rollout.max_num_seqs,
        max_images_per_prompt=max(1, max_images),
        gpu_memory_utilization=config.rollout.gpu_memory_utilization,
        banned_token_ids=encoder.vision_token_ids,
        stop_token_ids=encoder.eos_token_ids,
        seed=config.run.seed,
        sync_backend=sync_backend(config, plan),
        shares_device=config.placement.layout == "colocated",
    )


@contextmanager
def reward_client(config: TrainConfig, folder: RunFolder, pool: WorkerPool) -> Iterator[RewardClient]:
    """A client of ``reward.url``, or of a service started for this run."""
    url = config.reward.url
    service = RewardService(service_arguments(config, folder), pool.health) if url is None else None
    token_file = config.reward.token_file
    token = Path(token_file).read_text(encoding="utf-8").strip() if token_file else None
    client = RewardClient(
        service.locate if service is not None else lambda unreachable=None: str(url),
        timeout_s=config.reward.timeout_s,
        max_outage_s=config.reward.max_outage_s,
        token=token,
    )
    try:
        yield client
    finally:
        client.close()
        if service is not None:
            service.close()


def service_arguments(config: TrainConfig, folder: RunFolder) -> list[str]:
    """Command-line arguments of this run's reward service."""
    reward = config.reward
    arguments = ["--judge", reward.judge, "--cache", reward.cache_path or str(folder.root / "verdicts.sqlite")]
    if reward.judge == "openai":
        arguments += ["--judge-url", str(reward.judge_url), "--judge-model", str(reward.judge_model)]
        if reward.judge_key_file is not None:
            arguments += ["--judge-key-file", reward.judge_key_file]
    return arguments


@contextmanager
def worker_pool(config: TrainConfig, plan: PlacementPlan, spec: EngineSpec | None) -> Iterator[WorkerPool]:
    """Create the pool and start its engines, if it has any; policy and reference follow stage by stage."""
    assert config.model.path is not None
    ranks = max(1, len(plan.workers_of("policy")))
    pool = WorkerPool(
        plan,
        PoolSpec(
            engine=spec,
            engine_kind=engine_kind(config),
            tokens_per_microbatch=config.policy.tokens_per_microbatch,
            share_prompts=shares_prompts(config, config.model.path),
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


@contextmanager
def open_session(
    config: TrainConfig, folder: RunFolder, pool: WorkerPool, encoder: PromptEncoder, data: RunData
) -> Iterator[tuple[Session, Progress]]:
    """Start the policy (and reference), resume if there is something to resume, and sync the engines.

    Yields:
        The session and where it stands.
    Raises:
        RefusedInput: the run folder holds a checkpoint of another run.
    """
    assert config.model.path is not None
    fingerprint = data.train.fingerprint
    clear_exchange(_run_id(folder))
    with started_run(config, folder, fingerprint=fingerprint, num_prompts=len(data.train.prompts)) as start:
        if config.algo != "sft":
            pool.start_reference(model_spec(config, config.model.path))
        start_policy(config, pool, start)
        session = Session(
            config=config,
            folder=folder,
            pool=pool,
            engines=policy_engines(
                config,
                folder,
                pool,
                probe=lambda: first_prompts(data.train.prompts, encoder, config.sync.probe_prompts),
            ),
            encoder=encoder,
            train=data.train.prompts,
            held_out=data.held_out,
            fingerprint=fingerprint,
            tracker=start.tracker,
            console=start.console,
            log=start.log,
        )
        try:
            session.verified_sync(start.progress.policy_version)
            yield session, start.progress
        finally:
            clear_exchange(_run_id(folder))


def policy_engines(
    config: TrainConfig, folder: RunFolder, pool: WorkerPool, *, probe: Callable[[], list[EncodedPrompt]]
) -> Engines:
    """The pool's engines, which follow its policy; see ``Engines``."""
    assert config.model.path is not None
    dtype = "bfloat16" if "bfloat16" in str(model_spec(config, config.model.path).torch_dtype) else "float32"
    sync = WeightSync(
        pool,
        run_id=_run_id(folder),
        tolerance=config.sync.tolerance or _TOLERANCE[dtype],
        deadline_s=config.rollout.timeout_s,
    )
    return Engines(pool, sync, probe=probe, deadline_s=config.rollout.timeout_s)


def _run_id(folder: RunFolder) -> str:
    return uuid5(NAMESPACE_URL, str(Path(folder.root).resolve())).hex[:12]


def start_policy(config: TrainConfig, pool: WorkerPool, start: RunStart) -> None:
    """Start the policy on the weights and optimizer state that the run continues from."""
    found = start.checkpoint
    pool.start_policy(policy_spec(config, str(found / "policy") if found else None))
    if found:
        pool.policy_call(
            "load_state", str(found), num_steps=start.progress.num_updates, deadline_s=config.rollout.timeout_s
        )
