"""What ``auto`` comes to: the number format, the engine, the transport of weights, whether prompts are shared. Pure."""

import importlib.util
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.resources import machine_of
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from workers.models.adapters import ModelAdapter, adapter_for
from workers.models.folder import read_model_config

if TYPE_CHECKING:  # it imports torch, and most refusals can be had without
    from workers.weight_sync.manifest import Backend


def settled_dtype(config: TrainConfig, plan: PlacementPlan) -> TrainConfig:
    """The configuration with ``model.dtype = "auto"`` put into words: bfloat16 where workers have GPUs, else float32.

    The driver may run on a machine of another kind, and side tables and checkpoints must say what workers really did.

    Raises:
        RefusedInput: the attention that was asked for cannot compute in it.
    """
    if config.model.dtype != "auto":
        return config
    dtype = "bfloat16" if any(worker.num_gpus for worker in plan.workers) else "float32"
    if dtype == "float32" and config.model.attention.startswith("flash"):
        raise RefusedInput(
            f"model.attention = {config.model.attention!r} needs GPUs: without any, model.dtype = 'auto' is 'float32'"
        )
    return config.model_copy(update={"model": config.model.model_copy(update={"dtype": dtype})})


def engine_kind(config: TrainConfig, model_path: str | None = None) -> Literal["vllm", "transformers"]:
    """The rollout engine this run uses, for its own model or for another."""
    if config.rollout.engine != "auto":
        return config.rollout.engine
    path = model_path or config.model.path
    # Without a path it is the embedded task's, which vLLM serves.
    served = path is None or adapter_of(path).vllm
    return "vllm" if served and importlib.util.find_spec("vllm") is not None else "transformers"


def shares_prompts(config: TrainConfig, model_path: str) -> bool:
    """Whether sequences of one prompt share a row: asked for, and possible with this model."""
    described: dict[str, Any] = read_model_config(model_path)
    adapter, text = adapter_for(described["model_type"]), described.get("text_config", described)
    # A response attends to its whole prompt.
    windowed = text.get("use_sliding_window", True) and text.get("sliding_window") is not None
    return config.batching.mode == "shared_prompt" and adapter.shares_prompts and not windowed


def check_attention(config: TrainConfig, model_path: str, option: str = "model.path") -> None:
    """Refuse FlexAttention for a model whose rows are not packed, which would need it in all of its parts.

    Args:
        option: What names the model.
    Raises:
        RefusedInput: saying why prompts are not shared.
    """
    if config.model.attention != "flex_attention" or shares_prompts(config, model_path):
        return
    pairs, kind = config.batching.mode == "pairs", adapter_of(model_path).model_type
    reason = "batching.mode = 'pairs' leaves out" if pairs else f"the {kind} of {option} {model_path!r} cannot have"
    raise RefusedInput(f"model.attention = 'flex_attention' needs rows with shared prompts, which {reason}")


def sync_backend(config: TrainConfig, plan: PlacementPlan) -> "Backend":
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


def adapter_of(path: str) -> ModelAdapter:
    """What is known of the architecture of the model in a folder."""
    return adapter_for(str(read_model_config(path)["model_type"]))
