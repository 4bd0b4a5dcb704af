"""What a model asks of its surroundings: positions beyond which it was never trained, and packages of its attention."""

from importlib import metadata
from typing import Any

_SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
"""Kinds of rotary scaling after which ``max_position_embeddings`` holds the longer length. The others multiply it."""


def max_positions(config: Any) -> int | None:
    """Most tokens of a prompt with all that follows it, as vLLM counts them too; None where the model sets no bound.

    A sliding window is no bound: it says how far a token looks back, not how far a text may go.

    Args:
        config: transformers' configuration of an image-text-to-text model.
    """
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if most is None else int(most * _stretch(config))


def told_positions(config: Any) -> str:
    """Which setting of the model says so, with its value."""
    most, stretch = config.get_text_config().max_position_embeddings, _stretch(config)
    return f"max_position_embeddings = {most}" + (f" x {stretch:g} of its rope scaling" if stretch != 1.0 else "")


def _stretch(config: Any) -> float:
    scaling = getattr(config.get_text_config(), "rope_parameters", None) or {}
    # One record, or one for each kind of layer; vLLM reads the last that has a factor.
    records = list(scaling.values()) if scaling and all(isinstance(v, dict) for v in scaling.values()) else [scaling]
    factors = [r["factor"] for r in records if r.get("rope_type") not in _SCALED_ALREADY and r.get("factor")]
    return float(factors[-1]) if factors else 1.0


_PACKAGES = {
    "flash_attention_2": "flash-attn",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_4": "flash-attn-4",
}


def missing_package(attention: str) -> str | None:
    """The package that ``attention`` needs and this environment lacks; None where nothing is missing.

    Asked for by the package's name: two of them bring a module of the same name.
    """
    package = _PACKAGES.get(attention)
    if package is None:
        return None
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return package
    return None
