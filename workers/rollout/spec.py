"""How a rollout engine is built, whichever library is behind it."""

from dataclasses import dataclass
from typing import Literal

from workers.models.loading import ModelSpec
from workers.weight_sync.manifest import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """How a rollout engine is built."""

    kind: Literal["vllm", "transformers"]
    model: ModelSpec
    tensor_parallel_size: int
    max_model_len: int
    max_num_seqs: int
    max_images_per_prompt: int
    gpu_memory_utilization: float
    banned_token_ids: tuple[int, ...]
    """Vision tokens: they stand for media in prompts and must never be sampled."""
    stop_token_ids: tuple[int, ...]
    seed: int
    cuda_graphs: bool = True
    """On GPUs a decoding step is recorded once and replayed; a CPU has none."""
    sync_backend: Backend = "shared_memory"
    """How weights arrive."""
    shares_device: bool = False
    """The policy has the same GPU: the engine sleeps while it trains, from birth until its first weights arrive."""
