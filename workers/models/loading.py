"""Loading a model folder for training or scoring."""

import copy
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from workers.models import shared_prompt
from workers.models.adapters import ModelAdapter, adapter_for, check_freeze
from workers.models.lora import kept_buffers, wear_adapter

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
    quantize: Literal["nf4"] | None = None
    """``nf4`` stores the linear layers, except the head, in four bits a number (Dettmers et al. 2023,
    https://arxiv.org/abs/2305.14314), which bitsandbytes does on a GPU; None stores them in ``dtype``. Its refusals are
    tested, the rest not."""
    max_pixels: int | None = None
    """Images of more are resized, by processors that resize by a number of pixels; None is their own bound."""
    adapter: str | None = None
    """Folder of a saved adapter that the model wears, unmerged and frozen; None = it is as ``path`` holds it."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The resolved dtype on this machine."""
        if self.dtype == "auto":
            return torch.bfloat16 if torch.cuda.is_available() else torch.float32
        return DTYPES[self.dtype]


Loader = Callable[[ModelSpec], tuple[Any, ModelAdapter]]
"""How a role comes to its model: ``load_model``, or one that several roles of a process share."""


def load_model(spec: ModelSpec) -> tuple[Any, ModelAdapter]:
    """Load the model of ``spec`` in evaluation mode (no dropout: old and new log-probs must be comparable).

    Raises:
        ValueError: the weights cannot be quantised here, nothing here computes the attention, or the folder lacks
            some weights that the model has.
    """
    options: dict[str, Any] = {}
    # Few towers know FlexAttention.
    around = "sdpa" if spec.share_prompts and spec.attention == "flex_attention" else spec.attention
    if spec.quantize is not None:
        check_quantize(has_gpu=torch.cuda.is_available())
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=spec.quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=spec.torch_dtype,
        )
        options["device_map"] = {"": torch.cuda.current_device()}
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        Path(spec.path),
        dtype=spec.torch_dtype,
        attn_implementation=around,
        trust_remote_code=spec.trust_remote_code,
        output_loading_info=True,
        **options,
    )
    model, found = loaded
    if missing := sorted(found["missing_keys"]):  # transformers makes them up, with no more than a warning
        raise ValueError(f"{spec.path!r} lacks {len(missing)} of the model's tensors; the first is {missing[0]!r}")
    if spec.share_prompts:
        _check_kernel(model, spec)
        shared_prompt.register()
        model.set_attn_implementation({"": around, "text_config": shared_prompt.NAMES[spec.attention]})
    return worn(model.eval(), spec.adapter), adapter_for(model.config.model_type)


def _check_kernel(model: Any, spec: ModelSpec) -> None:
    """Refuse attention that this machine cannot compute before hours of work and not in a first forward."""
    text = model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shared_prompt.kernel_name(spec.attention, shared_prompt.Card.of(device), dtype=spec.torch_dtype, width=width)


def worn(model: Any, adapter: str | None) -> Any:
    """The model with the adapter saved in a folder, in the number format that it would be trained in; with none, as is.

    Raises:
        ValueError: the folder does not hold an adapter of this model.
    """
    if adapter is not None:
        wear_adapter(model, Path(adapter), dtype=None)
        model.requires_grad_(False)
    return model


def released_tensors(model: torch.nn.Module, adapter: ModelAdapter) -> dict[str, torch.Tensor]:
    """All that a checkpoint of the model holds, as views of the model's own memory."""
    named = (*model.named_parameters(), *kept_buffers(model))
    return {name: view for own, tensor in named for name, view in adapter.released(own, tensor.detach())}


def check_quantize(*, has_gpu: bool) -> None:
    """Refuse to quantise weights where nothing can.

    Raises:
        ValueError: what is missing, in one sentence.
    """
    if not has_gpu:
        raise ValueError("model.quantize = 'nf4' needs a GPU for every policy rank and every reference worker")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("model.quantize = 'nf4', but the package bitsandbytes is not installed")


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


def draw_afresh(model: Any, *, seed: int) -> None:
    """Give every trainable parameter what it has in a new model, the same on every rank."""
    config: Any = copy.deepcopy(model.config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        # How a model attends says nothing about its weights, and ours has a name that others do not know.
        new: Any = type(model)._from_config(config, dtype=torch.float32, attn_implementation="eager")
        drawn = dict(new.named_parameters())
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(drawn[name])


def train_without_dropout(model: torch.nn.Module) -> None:
    """transformers checkpoints activations only in training mode; dropout would make log-probs incomparable."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for rate in ("attention_dropout", "dropout"):  # of attention, which is a function and no module
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
