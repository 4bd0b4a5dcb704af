"""A worker pool on the digits model, for tests of single joints."""

from pathlib import Path

from algorithms.algorithm import Objective, ScalarHead
from algorithms.sft import CrossEntropy
from orchestrator.cluster.placement import RoleRequest, plan_placement
from orchestrator.cluster.pool import PoolSpec, WorkerPool
from orchestrator.cluster.resources import ClusterResources, NodeResources
from workers.backends.schedule import OptimizerSpec, Schedule
from workers.models.loading import ModelSpec
from workers.models.lora import LoraSpec
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.policy import PolicySpec
from workers.rollout.spec import EngineSpec

_SCHEDULE = Schedule(peak_lr=1e-3, kind="constant", total_steps=100, warmup_frac=0.0, min_lr_frac=0.1)
_SUPERVISED = CrossEntropy()


def policy_spec(
    model: Path,
    *,
    zero_stage: int,
    objective: Objective = _SUPERVISED,
    head: ScalarHead | None = None,
    lora: LoraSpec | None = None,
) -> PolicySpec:
    """AdamW at 1e-3, supervised unless told otherwise; with adapters the vision tower gets none."""
    return PolicySpec(
        model=ModelSpec(path=str(model), share_prompts=True),
        source=str(model),
        optimizer=OptimizerSpec(
            zero_stage=zero_stage,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            max_grad_norm=1.0,
            offload_optimizer=False,
            schedule=_SCHEDULE,
        ),
        objective=objective,
        head=head,
        freeze=() if lora is None else ("vision",),
        gradient_checkpointing=False,
        lora=lora,
    )


def engine_spec(model: Path) -> EngineSpec:
    """One engine for short digit prompts."""
    encoder = PromptEncoder(model)
    return EngineSpec(
        kind="vllm",
        model=ModelSpec(path=str(model)),
        tensor_parallel_size=1,
        max_model_len=128,
        max_num_seqs=32,
        max_images_per_prompt=1,
        gpu_memory_utilization=0.5,
        banned_token_ids=encoder.vision_token_ids,
        stop_token_ids=encoder.eos_token_ids,
        seed=0,
    )


def make_pool(*, num_ranks: int, num_threads: int = 1) -> WorkerPool:
    """Placement groups on this machine; no actor is started yet."""
    cluster = ClusterResources(nodes=(NodeResources(name="here", cpus=4.0),))
    requests = [
        RoleRequest(role="policy", num_workers=num_ranks, gpus_per_worker=0, cpus_per_worker=1.0),
        RoleRequest(role="critic", num_workers=num_ranks, gpus_per_worker=0, cpus_per_worker=1.0),
        RoleRequest(role="rollout", num_workers=1, gpus_per_worker=0, cpus_per_worker=1.0),
    ]
    spec = PoolSpec(
        tokens_per_microbatch=256,
        share_prompts=True,
        num_threads=num_threads,
    )
    return WorkerPool(plan_placement(cluster, requests, layout="colocated"), spec)
