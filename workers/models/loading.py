"""Loading a model folder for training or scoring."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

from workers.models import shared_prompt
from workers.models.adapters import ModelAdapter, adapter_for, check_freeze

REWARD_HEAD = "score.weight"
"""Name of a scalar head in a checkpoint."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """How a role loads its model; the same record for every role, so they cannot differ."""

    path: str
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` is bfloat16 on a GPU and float32 on a CPU."""
    attention: str = "sdpa"
    trust_remote_code: bool = False
    share_prompts: bool = False
    """Sequences of one prompt share a row of the trainer's forwards."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The resolved dtype on this machine."""
        if self.dtype == "auto":
            return torch.bfloat16 if torch.cuda.is_available() else torch.float32
        return DTYPES[self.dtype]


def load_model(spec: ModelSpec) -> tuple[Any, ModelAdapter]:
    """Load the model of ``spec`` in evaluation mode (no dropout: old and new log-probs must be comparable)."""
    model = AutoModelForImageTextToText.from_pretrained(
        Path(spec.path),
        dtype=spec.torch_dtype,
        attn_implementation=spec.attention,
        trust_remote_code=spec.trust_remote_code,
    )
    if spec.share_prompts:
        shared_prompt.register()
        model.set_attn_implementation({"": spec.attention, "text_config": shared_prompt.NAME})
    return model.eval(), adapter_for(model.config.model_type)


def load_reward_head(spec: ModelSpec, model: Any) -> torch.nn.Linear:
    """The scalar head saved with the model of ``spec``, or a new one that gives every sequence the reward 0.

    From zero it learns at once, and a reward model's first loss is ln 2.
    """
    hidden = model.config.get_text_config().hidden_size
    head = torch.nn.Linear(hidden, 1, bias=False, dtype=spec.torch_dtype)
    torch.nn.init.zeros_(head.weight)
    for file in Path(spec.path).glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            if REWARD_HEAD in tensors.keys():
                head.weight.data.copy_(tensors.get_tensor(REWARD_HEAD))
    return head


def freeze_modules(model: torch.nn.Module, adapter: ModelAdapter, modules: Iterable[str]) -> int:
    """Turn off gradients in the named modules; return the number of tensors left trainable.

    Raises:
        ValueError: an unknown module, or nothing left to train.
    """
    frozen = check_freeze(modules)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(adapter.module_of(name) not in frozen)
    trainable = sum(1 for p in model.parameters() if p.requires_grad)
    if trainable == 0:
        raise ValueError(f"model.freeze = {sorted(frozen)} leaves no parameter to train")
    return trainable
