"""Everything that can be refused before a process is started: cheapest checks first, all within seconds."""

import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.cluster.placement import PlacementPlan, RoleRequest, plan_placement
from orchestrator.cluster.resources import (
    ClusterResources,
    NodeResources,
    cluster_of_nodes,
    load_cluster_file,
    machine_of,
)
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.lengths import check_demonstrations, check_positions
from workers.models.adapters import ModelAdapter, adapter_for
from workers.models.attention import missing_package
from workers.models.folder import check_model_config, check_model_folder, critique_request, read_model_config
from workers.types import Prompt
from workers.weight_sync.manifest import Backend

if TYPE_CHECKING:  # it imports transformers, and most refusals can be had without
    from workers.multimodal.prompt_encoder import PromptEncoder


def check_config(config: TrainConfig) -> None:
    """Refuse a model folder that does not describe a supported architecture, or one the chosen engine does not serve.

    Raises:
        RefusedInput: in one sentence.
    """
    _check_folder(config, check_model_config)
    assert config.model.path is not None
    if config.rollout.engine == "vllm" and not (adapter := _adapter_of(config.model.path)).vllm:
        raise RefusedInput(
            f"rollout.engine = 'vllm', but vLLM does not serve {adapter.model_type}; use 'transformers' or 'auto'"
        )


def check_model(config: TrainConfig) -> None:
    """Refuse a model folder or library that cannot serve.

    Raises:
        RefusedInput: in one sentence.
    """
    check_config(config)
    _check_folder(config, check_model_folder)
    if package := missing_package(config.model.attention):
        raise RefusedInput(f"model.attention = {config.model.attention!r}, but the package {package} is not installed")
    if config.rollout.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise RefusedInput("rollout.engine = 'vllm', but vllm is not installed; use 'transformers' or 'auto'")


def check_critique_model(config: TrainConfig) -> None:
    """Refuse a ``reward.critique.path`` that is no critique reward model.

    Raises:
        RefusedInput: in one sentence.
    """
    path = config.reward.critique.path
    if path is None:
        return
    try:
        check_model_folder(path, trust_remote_code=config.model.trust_remote_code, trained=False)
        critique_request(Path(path))
    except ValueError as error:
        raise RefusedInput(f"reward.critique.path: {error}") from error


def check_processors(config: TrainConfig) -> None:
    """Refuse models whose processor or tokenizer cannot be loaded; the slowest of the checks of a model, by seconds.

    Raises:
        RefusedInput: naming the model's option, and what the library that loads it says.
    """
    # Deferred: it imports transformers, and most refusals can be had without.
    from workers.multimodal.processor import check_processor

    for option, path in (("model.path", config.model.path), ("reward.critique.path", config.reward.critique.path)):
        if path is None:
            continue
        try:
            check_processor(path, trust_remote_code=config.model.trust_remote_code)
        except ValueError as error:
            raise RefusedInput(f"{option}: {error}") from error


def check_trackers(config: TrainConfig) -> None:
    """Refuse a tracker whose package is missing.

    Raises:
        RefusedInput: naming it.
    """
    for tracker in config.run.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise RefusedInput(f"run.trackers names {tracker!r}, but the package {tracker} is not installed")


def engine_kind(config: TrainConfig, model_path: str | None = None) -> Literal["vllm", "transformers"]:
    """The rollout engine this run uses, for its own model or for another."""
    if config.rollout.engine != "auto":
        return config.rollout.engine
    path = model_path or config.model.path
    # Without a path it is the embedded task's, which vLLM serves.
    served = path is None or _adapter_of(path).vllm
    return "vllm" if served and importlib.util.find_spec("vllm") is not None else "transformers"


def shares_prompts(config: TrainConfig, model_path: str) -> bool:
    """Whether sequences of one prompt share a row: asked for, and possible with this model and its attention."""
    described: dict[str, Any] = read_model_config(model_path)
    adapter, text = adapter_for(described["model_type"]), described.get("text_config", described)
    # A response attends to its whole prompt; and of transformers' attentions only this one takes our mask.
    windowed = text.get("use_sliding_window", True) and text.get("sliding_window") is not None
    possible = adapter.shares_prompts and config.model.attention == "sdpa" and not windowed
    return config.batching.mode == "shared_prompt" and possible


def check_lengths(config: TrainConfig, encoder: "PromptEncoder", prompts: Sequence[Prompt]) -> int:
    """Refuse prompts longer than allowed (a multimodal prompt is never truncated); return the longest.

    Raises:
        RefusedInput: with the count, the longest and the bound; or a micro-batch that could not hold one sample.
    """
    lengths = [len(encoder.encode(p).prompt_ids) for p in prompts]
    bound, longest = config.data.max_prompt_tokens, max(lengths)
    if longest > bound:
        too_long = sum(length > bound for length in lengths)
        worst = prompts[lengths.index(longest)].uid
        raise RefusedInput(
            f"{too_long} of {len(lengths)} prompts are longer than data.max_prompt_tokens = {bound}; "
            f"the longest is row {worst} with {longest} tokens"
        )
    check_positions(config, encoder, longest)
    if config.algo == "sft":
        check_demonstrations(config, encoder, prompts)
    whole = longest + config.rollout.max_new_tokens
    if whole > config.policy.tokens_per_microbatch:
        raise RefusedInput(
            f"policy.tokens_per_microbatch = {config.policy.tokens_per_microbatch} cannot hold one sample of "
            f"{longest} prompt + {config.rollout.max_new_tokens} new tokens = {whole}"
        )
    return longest


def role_requests(config: TrainConfig, cluster: ClusterResources) -> list[RoleRequest]:
    """The workers a run asks for; on a cluster without GPUs they ask for CPUs alone."""
    gpu = 1 if any(node.gpus for node in cluster.nodes) else 0
    counts = {"policy": config.policy.num_ranks}
    if config.reference_workers:
        counts["reference"] = config.reference_workers
    requests = [
        RoleRequest(role=role, num_workers=count, gpus_per_worker=gpu, cpus_per_worker=1.0)
        for role, count in counts.items()
    ]
    if config.offline is not None and not config.generates_critiques:
        return requests
    if config.reward.critique.weight:
        critics = config.reward.critique.num_workers
        requests.append(RoleRequest(role="critic", num_workers=critics, gpus_per_worker=gpu, cpus_per_worker=1.0))
    width = config.rollout.tensor_parallel_size * gpu
    return [
        *requests,
        RoleRequest(role="rollout", num_workers=config.rollout.num_engines, gpus_per_worker=width, cpus_per_worker=1.0),
    ]


def single_role_plan(
    config: TrainConfig,
    role: Literal["reference", "critic", "rollout"],
    num_workers: int,
    cluster: ClusterResources | None = None,
) -> PlacementPlan:
    """Workers of one role alone, for what is done before or after training.

    Args:
        cluster: Where; None looks at what there is, as ``plan_run`` does.
    Raises:
        RefusedInput: with the sum that does not fit.
    """
    cluster = cluster or _cluster_of(config)
    gpu = 1 if any(node.gpus for node in cluster.nodes) else 0
    width = config.rollout.tensor_parallel_size if role == "rollout" else 1
    request = RoleRequest(role=role, num_workers=num_workers, gpus_per_worker=width * gpu, cpus_per_worker=1.0)
    return plan_placement(cluster, [request], layout=config.placement.layout)


def plan_run(config: TrainConfig) -> tuple[ClusterResources, PlacementPlan]:
    """Place the run on the described cluster, on the one Ray reports, or on this machine.

    Raises:
        RefusedInput: with the sum that does not fit.
    """
    cluster = _cluster_of(config)
    plan = plan_placement(cluster, role_requests(config, cluster), layout=config.placement.layout)
    sync_backend(config, plan)
    if config.model.quantize is not None:
        _check_quantize(plan)
    return cluster, plan


def sync_backend(config: TrainConfig, plan: PlacementPlan) -> Backend:
    """How weights travel in this plan: shared memory within a machine, else IPC when colocated, NCCL when separate.

    Raises:
        RefusedInput: the transport that was asked for cannot serve the plan.
    """
    machines = {machine_of(bundle.node) for group in plan.groups for bundle in group.bundles}
    chosen = config.sync.backend
    if chosen == "auto":
        across: Backend = "ipc" if config.placement.layout == "colocated" else "nccl"
        chosen = "shared_memory" if len(machines) == 1 else across
    if chosen == "shared_memory":
        if len(machines) > 1:
            raise RefusedInput(f"sync.backend = 'shared_memory' reaches 1 machine, the plan uses {len(machines)}")
    elif engine_kind(config) == "transformers":
        raise RefusedInput(f"sync.backend = {chosen!r} needs rollout.engine = 'vllm', not 'transformers'")
    elif not any(worker.num_gpus for worker in plan.workers):
        raise RefusedInput(f"sync.backend = {chosen!r} needs GPUs, the plan uses {len(machines)} machines without any")
    return chosen


def ray_is_running() -> bool:
    """True inside a Ray job, or where an address of a cluster is set."""
    return "RAY_ADDRESS" in os.environ


def available_cluster() -> ClusterResources:
    """The machines of the running Ray cluster, else this machine."""
    if not ray_is_running():
        return this_machine()
    import ray  # deferred: most refusals need no cluster

    ray.init(logging_level=logging.WARNING, log_to_driver=False)
    try:
        return cluster_of_nodes(ray.nodes())
    finally:
        ray.shutdown()


def this_machine() -> ClusterResources:
    """This machine's processors and GPUs."""
    import torch  # deferred: configuration errors are answered before torch is loaded

    node = NodeResources(name="this machine", cpus=float(os.cpu_count() or 1), gpus=torch.cuda.device_count())
    return ClusterResources(nodes=(node,))


def _cluster_of(config: TrainConfig) -> ClusterResources:
    return load_cluster_file(config.placement.cluster) if config.placement.cluster else available_cluster()


def _adapter_of(path: str) -> ModelAdapter:
    return adapter_for(str(read_model_config(path)["model_type"]))


def _check_folder(config: TrainConfig, check: Callable[..., object]) -> None:
    assert config.model.path is not None
    try:
        check(config.model.path, trust_remote_code=config.model.trust_remote_code)
    except ValueError as error:
        raise RefusedInput(f"model.path: {error}") from error


def _check_quantize(plan: PlacementPlan) -> None:
    from workers.models.loading import check_quantize  # deferred: it imports transformers

    try:
        check_quantize(has_gpu=all(worker.num_gpus for worker in plan.workers_of("policy")))
    except ValueError as error:
        raise RefusedInput(str(error)) from error
