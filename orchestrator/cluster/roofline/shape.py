"""What one token of a model costs, from its ``config.json`` alone: its modules are made on no device and counted."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workers.models.described import described_model

_LARGE_TENSOR = 100_000
"""Numbers; DeepSpeed keeps smaller ones whole under ZeRO-3 (``stage3_param_persistence_threshold``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Vision tower, bridge or language model without its head."""

    weights: int
    """All its numbers."""
    products: float
    """Multiplications with weights for one token (language, bridge) or patch (vision); of experts those that a token
    meets."""
    experts: float = 0.0
    """Part of ``products`` that is experts'."""
    num_experts: int = 0
    experts_a_token: int = 0
    adapter: int = 0
    """Numbers of a LoRA adapter on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCounts:
    """A model, as far as speed depends on it."""

    language: Part
    vision: Part
    bridge: Part
    head: int
    """Multiplications for one token's logits."""
    num_params: int
    """``sum(p.numel())``, a tied head once."""
    large_tensors: int
    """Tensors that ZeRO-3 gathers one by one."""
    hidden: int
    layers: int
    """Of the language model."""
    attention_width: int
    """Query heads times their dimension, summed over the layers whose tokens see all before them."""
    key_value_width: int
    """Numbers of keys and values that a token leaves in these layers."""
    vision_layers: int
    vision_width: int
    whole_image_layers: int
    """Vision layers in which a patch sees all of its image; in the others it sees a window."""
    window_patches: int
    patches_a_token: float
    """Of a token that stands for an image."""
    features_a_token: float = 0.0
    """Numbers of its features that are kept where the tower is frozen, before the bridge; 0 where none are kept."""

    def parts(self) -> dict[str, Part]:
        """By the names of ``model.freeze``."""
        return {"vision": self.vision, "bridge": self.bridge, "language": self.language}

    def image_pairs(self, patches: float) -> float:
        """Pairs of patches that see each other in one image, summed over layers."""
        windows = self.vision_layers - self.whole_image_layers
        return patches * (self.whole_image_layers * patches + windows * min(self.window_patches, patches))

    def read_a_token(self, running: float) -> float:
        """Weights that a decoding step of so many sequences reads, numbers: of experts those that somebody meets."""
        language = self.language
        if not language.num_experts:
            return language.products + self.head
        met = 1 - (1 - language.experts_a_token / language.num_experts) ** running
        stacked = language.experts * language.num_experts / language.experts_a_token
        return language.products - language.experts + stacked * met + self.head


@lru_cache(maxsize=16)
def model_counts(path: str, *, freeze: tuple[str, ...] = (), lora_rank: int | None = None) -> ModelCounts:
    """Count the model of a folder.

    Args:
        freeze: Parts that get no adapter.
        lora_rank: Of an adapter on every linear layer of the other parts.
    """
    return counts_of(described_model(path), freeze=freeze, lora_rank=lora_rank)


def counts_of(model: Any, *, freeze: tuple[str, ...] = (), lora_rank: int | None = None) -> ModelCounts:
    """Count an image-text-to-text model of transformers, on any device."""
    config, text = model.config, model.config.get_text_config()
    parts = _parts(model, freeze, lora_rank)
    widths = _attention_widths(text)
    vision: Any = getattr(config, "vision_config", None)
    layers = _first(vision, "depth", "num_hidden_layers", default=0)
    whole = getattr(vision, "fullatt_block_indexes", None) if hasattr(vision, "window_size") else None
    side = _number(getattr(vision, "window_size", 0)) // _number(getattr(vision, "patch_size", 1)) if whole else 0
    patches, width = _patches_a_token(config, vision), _first(vision, "embed_dim", "hidden_size", default=0)
    return ModelCounts(
        **parts,
        head=model.get_output_embeddings().weight.numel(),
        num_params=sum(p.numel() for p in model.parameters()),
        large_tensors=sum(p.numel() > _LARGE_TENSOR for p in model.parameters()),
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        attention_width=sum(queries for queries, _ in widths),
        key_value_width=sum(keys for _, keys in widths),
        vision_layers=layers,
        vision_width=width,
        whole_image_layers=layers if whole is None else len(whole),
        window_patches=side**2,
        patches_a_token=patches,
        features_a_token=patches * width * _features_kept(config, vision),
    )


def _features_kept(config: Any, vision: Any) -> int:
    """Outputs of a vision tower that ``workers.models.vision_features`` keeps of an image."""
    from workers.models.adapters import adapter_for  # deferred: with torch

    tower = adapter_for(config.model_type).tower
    if tower is None:
        return 0
    layers = getattr(config, "vision_feature_layer", None)
    many = {
        "deepstack_features": len(getattr(vision, "deepstack_visual_indexes", None) or ()),
        "hidden_states": len(layers) if isinstance(layers, list | tuple) else int(layers is not None),
    }
    return sum(many.get(name, 1) for name in tower.gives)


def _parts(model: Any, freeze: tuple[str, ...], lora_rank: int | None) -> dict[str, Part]:
    from workers.models.adapters import MODULES, adapter_for  # deferred: with torch
    from workers.models.lora import lora_layers

    adapter, head = adapter_for(model.config.model_type), model.get_output_embeddings()
    weights, products, experts = ({str(part): 0.0 for part in MODULES} for _ in range(3))
    for name, parameter in model.named_parameters():
        weights[adapter.module_of(name)] += parameter.numel()
    text, number = model.config.get_text_config(), 0
    active = int(getattr(text, "num_experts_per_tok", None) or 0)
    for name, module in model.named_modules():
        if module is head or "audio" in name:
            continue
        for own, parameter in module.named_parameters(recurse=False):
            part = "bridge" if "downsample" in name else adapter.module_of(f"{name}.{own}")
            if name.endswith(".experts"):
                number = len(parameter)
                products[part] += parameter.numel() * active / number
                experts[part] += parameter.numel() * active / number
            elif own == "weight" and parameter.ndim > 1 and "Embedding" not in type(module).__name__:
                products[part] += parameter.numel()
    added = {str(part): 0 for part in MODULES}
    for name, layer in lora_layers(model, adapter, freeze).items() if lora_rank is not None else ():
        added[adapter.module_of(name + ".weight")] += (lora_rank or 0) * (layer.in_features + layer.out_features)
    return {
        part: Part(
            weights=int(weights[part]), products=products[part], experts=experts[part], adapter=added[part],
            num_experts=number if experts[part] else 0, experts_a_token=active if experts[part] else 0,
        )
        for part in MODULES
    }  # fmt: skip


def _attention_widths(text: Any) -> list[tuple[int, int]]:
    """Of each layer that keeps keys and values: numbers of a token's queries, and of its keys and values."""
    layers = range(text.num_hidden_layers)
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * len(layers)
    each = getattr(text, "per_layer_config", None) or [text] * len(layers)
    widths = []
    for index in layers:
        if kinds[index] != "linear_attention":
            heads = each[index].num_attention_heads
            size = getattr(each[index], "head_dim", None) or text.hidden_size // heads
            keys = getattr(each[index], "num_key_value_heads", None) or heads
            widths.append((heads * size, 2 * keys * size))
    return widths


def _patches_a_token(config: Any, vision: Any) -> float:
    """Patches that become one token: what each family calls the factor by which its bridge makes fewer of them."""
    if merged := getattr(vision, "spatial_merge_size", None):
        return merged**2
    if factor := getattr(config, "scale_factor", None):
        return factor**2
    if ratio := getattr(config, "downsample_ratio", None):
        return 1 / ratio**2
    if tokens := getattr(config, "mm_tokens_per_image", None) or getattr(config, "num_query_tokens", None):
        return (_number(vision.image_size) // _number(vision.patch_size)) ** 2 / tokens
    return float(getattr(vision, "pooling_kernel_size", 1) or 1) ** 2


def _number(told: Any) -> int:
    """A side that some configurations give twice."""
    return int(told[0] if isinstance(told, list | tuple) else told)


def _first(config: Any, *names: str, default: int) -> int:
    return next((int(value) for name in names if isinstance(value := getattr(config, name, None), int)), default)
