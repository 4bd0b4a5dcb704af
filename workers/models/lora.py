"""Low-rank adapters: where they go, the weights with them merged in, and the folder they are saved to.

A linear layer's W x becomes W x + s B A x: W stays as it was loaded, A is random, B is zero at first, s = alpha / rank
(Hu et al. 2022, https://arxiv.org/abs/2106.09685). W is never changed in memory; whoever wants plain weights gets
W + s B A of one tensor after the other. There is no dropout: old and new log-probs must be comparable.

Adapters have the number format of the base. Training loses nothing by it, for DeepSpeed keeps float32 masters of what
it trains. A merged bfloat16 weight is W + s B A rounded once, so engines see the policy to that precision.
"""

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from workers.models.adapter_folder import read_adapter_config
from workers.models.adapters import ModelAdapter, check_freeze
from workers.models.folder import ADAPTER_WEIGHTS

_BUCKET_BYTES = 64 << 20
"""Of whole tensors beside a sharded model."""
Gather = Callable[[Sequence[nn.Parameter]], AbstractContextManager[Any]]
"""Makes sharded parameters whole for as long as its context lasts; every rank must enter together."""

# peft's names: of its only adapter, of the parameters it adds, and of a wrapped layer's own weight.
_NAME, _ADDED, _WRAPPED = "default", ".lora_", ".base_layer."


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSpec:
    """How a policy learns through adapters."""

    rank: int
    alpha: int
    """The adapter's product counts alpha / rank times."""
    seed: int
    """Of A at the start."""
    saved: str | None = None
    """Folder of a saved adapter to continue from; None = start from the base."""

    @property
    def scale(self) -> float:
        """s, the factor of the adapter's product."""
        return self.alpha / self.rank


def lora_layers(model: nn.Module, architecture: ModelAdapter, freeze: Iterable[str]) -> dict[str, nn.Linear]:
    """The layers that get an adapter: every linear one outside the frozen modules, except the head.

    Raises:
        ValueError: an unknown module, or no linear layer left.
    """
    frozen = check_freeze(freeze)
    layers = {
        name: layer
        for name, layer in model.named_modules()
        # An attention of torch's own reads its projection's weight without calling it: no adapter could take part.
        if isinstance(layer, nn.Linear)
        and not isinstance(layer, NonDynamicallyQuantizableLinear)
        and name.rpartition(".")[2] != "lm_head"
        and architecture.module_of(f"{name}.weight") not in frozen
    }
    if not layers:
        raise ValueError(f"model.freeze = {sorted(frozen)} leaves no linear layer for model.lora_rank")
    return layers


def add_adapters(model: nn.Module, architecture: ModelAdapter, spec: LoraSpec, freeze: Iterable[str]) -> int:
    """Freeze the whole model and give it adapters; return the number of tensors left trainable.

    Raises:
        ValueError: no layer can have one, or ``spec.saved`` holds other adapters than these.
    """
    # Deferred: the driver describes adapters without peft.
    from peft import LoraConfig, inject_adapter_in_model

    places = lora_layers(model, architecture, freeze)
    pattern = full_path_pattern(places, [name for name, _ in model.named_modules()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        inject_adapter_in_model(LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules=pattern), model)
    if spec.saved is not None:
        load_adapter(model, Path(spec.saved))
    return sum(1 for p in model.parameters() if p.requires_grad)


def full_path_pattern(places: Iterable[str], names: Iterable[str]) -> str:
    """A regular expression of whole module paths that selects ``places`` among ``names`` and nothing else.

    peft takes suffixes too, but a vision tower shares them with the language model: ``q_proj`` is in both.
    """
    wanted = sorted(places)
    # Layers differ by their number only; where that selects too much, every path is spelled out.
    short = "|".join(sorted({re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(name)) for name in wanted}))
    selected = sorted(name for name in names if re.fullmatch(short, name))
    return short if selected == wanted else "|".join(map(re.escape, wanted))


def plain_parameters(module: nn.Module, gathered: Gather, *, scale: float) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield name, whole tensor and whether training changes it, as if there were no adapters: they are merged in.

    Buffers that belong to a checkpoint come last.

    Tensors are whole a bucket at a time, and for no longer than that: gathered one by one, each would be a message of
    its own. Where parameters are sharded every rank must iterate together.

    Args:
        scale: ``LoraSpec.scale``; any number where the module has no adapters.
    """
    parameters = dict(module.named_parameters())
    for bucket in _buckets(parameters):
        with gathered([p for parts in bucket.values() for p in parts]):
            for name, (parameter, *pair) in bucket.items():
                tensor = _unquantized(parameter)
                if pair:
                    tensor = merged(tensor, *(p.detach() for p in pair), scale=scale)
                yield name.replace(_WRAPPED, "."), tensor, bool(pair) or parameter.requires_grad
    for name, buffer in kept_buffers(module):
        yield name, buffer, False


def _buckets(parameters: dict[str, nn.Parameter]) -> Iterator[dict[str, list[nn.Parameter]]]:
    """Parameters, each with the adapters of its own, in buckets of at most ``_BUCKET_BYTES`` or one alone."""
    bucket: dict[str, list[nn.Parameter]] = {}
    held = 0
    for name, parameter in parameters.items():
        if _ADDED in name:
            continue
        place = name.removesuffix(f"{_WRAPPED}weight")
        pair = [parameters[f"{place}{_ADDED}{side}.{_NAME}.weight"] for side in "AB"] if place != name else []
        # DeepSpeed leaves a parameter of which this rank has a shard alone without elements.
        size = sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in (parameter, *pair))
        if bucket and held + size > _BUCKET_BYTES:
            yield bucket
            bucket, held = {}, 0
        bucket[name] = [parameter, *pair]
        held += size
    if bucket:
        yield bucket


def kept_buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a checkpoint holds besides parameters, such as what a router adds to its scores."""
    for place, part in module.named_modules():
        for name, buffer in part.named_buffers(recurse=False):
            if name not in part._non_persistent_buffers_set:
                yield f"{place}.{name}" if place else name, buffer


def merged(weight: Tensor, a: Tensor, b: Tensor, *, scale: float) -> Tensor:
    """W + s B A, computed in float32 and rounded once to the format of ``weight``."""
    return (weight.float() + scale * (b.float() @ a.float())).to(weight.dtype)


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Let the base alone answer, exactly: the adapters' product counts 0 times for as long as the context lasts.

    They are still computed. Skipping them, as peft's ``disable_adapter`` does, would give ZeRO-3 another order of
    modules than the one whose parameters it has learned to fetch ahead.
    """
    from peft.tuners.lora import LoraLayer  # deferred, as above

    layers = [layer for layer in module.modules() if isinstance(layer, LoraLayer)]
    for layer in layers:
        layer.set_scale(_NAME, 0.0)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_scale(_NAME, 1.0)


def adapter_tensors(model: nn.Module, gathered: Gather) -> dict[str, Tensor]:
    """Every adapter tensor, whole and on the CPU, under peft's name for files; every rank must call together."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in _added(model):
        with gathered([parameter]):
            tensors[_file_name(name)] = parameter.detach().cpu().clone()
    return tensors


def save_adapter(model: Any, tensors: dict[str, Tensor], folder: Path, *, source: str) -> None:
    """Write what peft's ``PeftModel.from_pretrained`` reads.

    Args:
        model: The one that ``add_adapters`` was given.
        tensors: Its ``adapter_tensors``.
        source: Folder of the base, written down as an absolute path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.copy(model.peft_config[_NAME])
    config.inference_mode, config.base_model_name_or_path = True, str(Path(source).resolve())
    config.save_pretrained(str(folder))
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def wear_adapter(model: nn.Module, folder: Path, *, dtype: torch.dtype | None = torch.float32) -> float:
    """Give a plain model the adapter saved in ``folder``; return its ``scale``.

    Args:
        dtype: Number format of the adapter; None is that of the base, in which adapters are trained.
    Raises:
        ValueError: the folder does not hold an adapter of this model.
    """
    from peft import LoraConfig, inject_adapter_in_model  # deferred, as above

    config = read_adapter_config(folder)
    inject_adapter_in_model(LoraConfig.from_pretrained(str(folder)), model)
    for _, parameter in _added(model) if dtype is not None else ():
        # peft gives it the base's format, which may be narrower than what was trained.
        parameter.data = parameter.data.to(dtype)
    load_adapter(model, folder)
    return config["lora_alpha"] / config["r"]


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Copy a saved adapter into the model's adapters, which must be the same ones.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape.
    """
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise ValueError(f"{str(folder)!r} has no {ADAPTER_WEIGHTS}")
    saved, here = load_file(file), {_file_name(name): parameter for name, parameter in _added(model)}
    wrong = sorted(
        name
        for name in saved.keys() | here.keys()
        if name not in saved or name not in here or saved[name].shape != here[name].shape
    )
    if wrong:
        raise ValueError(
            f"{str(folder)!r} holds other adapters than model.lora_rank and model.freeze ask for: "
            f"{len(wrong)} tensors differ, the first is {wrong[0]}"
        )
    with torch.no_grad():
        for name, parameter in here.items():
            parameter.copy_(saved[name])


def _added(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if _ADDED in name]


def _file_name(name: str) -> str:
    return "base_model.model." + name.replace(f".{_NAME}.", ".")


def _unquantized(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype.is_floating_point:
        return parameter.detach()
    from peft.utils.integrations import dequantize_bnb_weight  # deferred: only with model.quantize

    return dequantize_bnb_weight(parameter)
