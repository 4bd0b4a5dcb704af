"""How much memory every role will take: arithmetic on the configuration and the model's shape, before anything starts.

It counts what grows with the model and the batch: weights, gradients, optimizer state, activations, logits. What it
cannot know (the allocator's fragments, NCCL's buffers, the CUDA context) is the share it leaves free.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from orchestrator.cluster.resources import GIB
from orchestrator.cluster.roofline.shape import model_counts
from orchestrator.config.schema import TrainConfig
from workers.models.adapter_folder import base_folder, is_adapter, num_weights
from workers.models.described import described_model

_BYTES = {"float32": 4, "bfloat16": 2}
_ADAM_BYTES = 12
"""float32 master weights and two moments."""
_LAYER_BYTES = 34
"""Activations of one transformer layer with flash or memory-efficient attention, bytes per token and hidden unit in
16 bits: Korthikanti et al. 2022, equation 1, without its quadratic term."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The numbers of a model that memory depends on."""

    num_params: int
    num_trainable: int
    hidden: int
    layers: int
    vocab: int


@dataclass(frozen=True, slots=True)
class RoleMemory:
    """What one worker of a role holds on its GPU (or, without GPU, in memory), and on the host."""

    gpu: dict[str, float]
    """Bytes by what they are for."""
    host: dict[str, float]
    resident: float
    """Bytes that stay on the GPU while another role has its turn."""
    shares: float = 0.0
    """Bytes of weights that it finds in the policy's workers, where it is, and does not hold itself."""


@dataclass(frozen=True, kw_only=True)
class MemoryQuestion:
    """What the memory of a worker follows from."""

    config: TrainConfig
    """Its number format is settled."""
    gpu_memory_gib: float | None
    """Of one GPU, of which engines take a share; None where there is none, or its size is not known."""

    @property
    def width(self) -> int:
        """Bytes of a weight."""
        return _BYTES[self.config.model.dtype]

    @cached_property
    def shape(self) -> ModelShape:
        """Of the run's own model."""
        model = self.config.model
        return model_shape(model.folder, model.freeze, lora_rank=model.lora_rank)


def model_shape(path: str, freeze: tuple[str, ...], *, lora_rank: int | None = None) -> ModelShape:
    """Count a model's parameters from its ``config.json`` alone, on no device; with a rank, also its adapters'."""
    # Deferred: only a dry run and a preflight ask.
    from workers.models.adapters import adapter_for
    from workers.models.lora import lora_layers

    model = described_model(path)
    config: Any = model.config
    adapter = adapter_for(config.model_type)
    sizes = [(adapter.module_of(name), parameter.numel()) for name, parameter in model.named_parameters()]
    text = config.get_text_config()
    added = 0
    if lora_rank is not None:
        layers = lora_layers(model, adapter, freeze).values()
        added = sum(lora_rank * (layer.in_features + layer.out_features) for layer in layers)
    return ModelShape(
        num_params=sum(size for _, size in sizes) + added,
        num_trainable=added or sum(size for part, size in sizes if part not in freeze),
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        vocab=text.vocab_size,
    )


def on_base(held: RoleMemory, asked: MemoryQuestion) -> RoleMemory:
    """What a role holds whose base is the policy's: its adapter is what remains of its weights."""
    base = float((asked.shape.num_params - asked.shape.num_trainable) * asked.width)
    adapter = {"adapter": held.gpu["weights"] - base}
    # The features of a tower that the policy does not train either are the policy's.
    common = ("weights", "vision features") if "vision" in asked.config.model.freeze else ("weights",)
    rest = {name: amount for name, amount in held.gpu.items() if name not in common}
    gone = held.gpu.get("vision features", 0.0) if len(common) > 1 else 0.0
    return RoleMemory(adapter | rest, held.host, held.resident - base - gone, shares=base)


def of_policy(asked: MemoryQuestion) -> RoleMemory:
    """Weights, what they learn with, and the activations of one micro-batch."""
    model, held = asked.config.model, _of_rank(asked, asked.shape, asked.config.model.folder)
    learns = "language" not in model.freeze and model.lora_rank is None
    return replace(held, gpu={**held.gpu, "logits": _logits(asked, asked.shape, learns=learns)})


def of_critic(asked: MemoryQuestion) -> RoleMemory:
    """The same without logits, of the model that the critic begins from."""
    path, model = asked.config.critic_path, asked.config.model
    shape = asked.shape if path is None else model_shape(base_folder(path), model.freeze, lora_rank=model.lora_rank)
    return _of_rank(asked, shape, path or model.folder)


def _of_rank(asked: MemoryQuestion, shape: ModelShape, path: str) -> RoleMemory:
    config, width = asked.config, asked.width
    policy, ranks = config.policy, config.policy.num_ranks
    stage = policy.zero_stage
    weights = shape.num_params * width / (ranks if stage == 3 else 1)
    # Added up in float32 where they are sharded; where that is asked for and they are not, beside those of a backward.
    whole = width if policy.grad_dtype == "auto" else width + _BYTES["float32"]
    gradients = shape.num_trainable * (_BYTES["float32"] / ranks if stage >= 2 else whole)
    optimizer = shape.num_trainable * _ADAM_BYTES / (ranks if stage >= 1 else 1)
    tokens = policy.tokens_per_microbatch
    layer = tokens * shape.hidden * _LAYER_BYTES * width / 2
    kept = tokens * shape.hidden * width * shape.layers + layer
    activations = kept if config.model.gradient_checkpointing else layer * shape.layers
    gpu = {
        "weights": weights,
        "gradients": gradients,
        "activations": float(activations),
    }
    host: dict[str, float] = {}
    (host if policy.offload_optimizer else gpu)["optimizer"] = optimizer
    features = _features(asked, path) if "vision" in config.model.freeze else {}
    resident = weights + sum(features.values()) + (0.0 if policy.offload_optimizer else optimizer)
    return RoleMemory(gpu | features, host, resident)


def of_reference(asked: MemoryQuestion) -> RoleMemory:
    """The weights of the policy, or of a teacher, and their logits."""
    teacher = asked.config.needs.teacher
    shape = asked.shape if teacher is None else model_shape(base_folder(teacher), ())
    weights = _frozen(asked, teacher or asked.config.model.folder, asked.config.model.adapter)
    features = _features(asked, teacher or asked.config.model.folder)
    held = {"weights": weights, "logits": _logits(asked, shape, learns=None)} | features
    return RoleMemory(held, {}, weights + sum(features.values()))


def of_critique_reward(asked: MemoryQuestion) -> RoleMemory:
    """Two copies of the critique reward model's weights, one in an engine, which does not sleep."""
    model = asked.config.reward.critique.path
    assert model is not None
    size = model_shape(model, ()).num_params * asked.width
    held = {"weights": float(size)} | _engine(asked, size, prefix="engine's ")
    return RoleMemory(held, {}, sum(held.values()))


def of_judge(asked: MemoryQuestion) -> RoleMemory:
    """An engine that does not sleep."""
    model = asked.config.reward.judge_path
    assert model is not None
    held = _engine(asked, float(model_shape(model, ()).num_params * asked.width))
    return RoleMemory(held, {}, sum(held.values()))


def of_scalar_reward(asked: MemoryQuestion) -> RoleMemory:
    """Weights alone: the head has one column."""
    model = asked.config.reward.scalar_path
    assert model is not None
    held = {"weights": _frozen(asked, model)} | _features(asked, model)
    return RoleMemory(held, {}, sum(held.values()))


def of_engine(asked: MemoryQuestion) -> RoleMemory:
    """Asleep, an engine keeps its weights on the host and nothing on the GPU."""
    size = asked.shape.num_params * asked.width / asked.config.rollout.tensor_parallel_size
    asleep, resident = ({}, size) if asked.gpu_memory_gib is None else ({"weights while asleep": size}, 0.0)
    return RoleMemory(_engine(asked, size), asleep, resident)


def _frozen(asked: MemoryQuestion, path: str, adapter: str | None = None) -> float:
    """Weights of a model that does not learn, with the adapter in its folder or in another one; bytes."""
    worn = path if is_adapter(path) else adapter
    numbers = model_shape(base_folder(path), ()).num_params + (0 if worn is None else num_weights(worn))
    return float(numbers * asked.width)


def _engine(asked: MemoryQuestion, weights: float, *, prefix: str = "") -> dict[str, float]:
    """What an engine takes: its share of the GPU, or, where that is not known, its weights alone; bytes."""
    if asked.gpu_memory_gib is None:
        return {f"{prefix}weights": weights}
    share = asked.config.rollout.gpu_memory_utilization * asked.gpu_memory_gib * GIB
    return {f"{prefix}weights": weights, f"{prefix}cache and activations": share - weights}


def _logits(asked: MemoryQuestion, shape: ModelShape, *, learns: bool | None) -> float:
    """What the head leaves at sampled positions, from forward to backward pass, and a piece of it in float32; bytes.

    Logits in the model's number format, as many as are kept at once. Below a head that does not learn, a row of hidden
    size a token, and the logits of one piece; but under ZeRO-3 it is together for its own passes alone.

    Args:
        learns: The head does; None = there is no backward pass.
    """
    from workers.models.fused_head import BYTES_KEPT, NUMBERS_AT_ONCE  # deferred: it imports torch
    from workers.models.policy_module import LOGITS_AT_ONCE

    config, device = asked.config, "cpu" if asked.gpu_memory_gib is None else "cuda"
    sampled = min(config.policy.tokens_per_microbatch, config.rollout.max_new_tokens * _most_samples(config))
    logits, wide = sampled * shape.vocab, 2.0 * _BYTES["float32"]  # scores and their log-softmax
    at_once = min(logits, max(NUMBERS_AT_ONCE[device], shape.vocab)) * wide
    if learns or (learns is False and config.policy.zero_stage == 3):
        return min(logits * asked.width, BYTES_KEPT[device]) + at_once
    rows = 0 if learns is None else sampled * shape.hidden
    return (min(logits, LOGITS_AT_ONCE) + rows) * asked.width + at_once


def _features(asked: MemoryQuestion, path: str) -> dict[str, float]:
    """What a frozen vision tower said of a step's images, at most, as if all their prompts' tokens were of images."""
    from workers.models.vision_features import KEPT_BYTES  # deferred: it imports torch

    config, counts = asked.config, model_counts(base_folder(path))
    prompts = max(config.rollout.prompts_per_step, config.policy.train_batch_size)
    seen = prompts * config.data.max_prompt_tokens * counts.features_a_token * asked.width
    return {"vision features": min(float(KEPT_BYTES), seen)} if seen else {}


def _most_samples(config: TrainConfig) -> int:
    """Samples of one micro-batch when every prompt is of the longest kind."""
    whole = config.data.max_prompt_tokens + config.rollout.max_new_tokens
    return max(1, config.policy.tokens_per_microbatch // whole)
