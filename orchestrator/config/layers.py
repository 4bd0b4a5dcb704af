"""Layers of settings, flat by dotted name, and the order in which they override each other."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from algorithms.preference_registry import PREFERENCE_ALGORITHMS
from orchestrator.config.options import options, unknown_option
from orchestrator.errors import RefusedInput

Layer = dict[str, Any]
"""Values by dotted name, e.g. ``{"optimizer.lr": 1e-4}``."""

_ALGORITHM_DEFAULTS: dict[str, Layer] = {
    # StableReinforce without its two guards.
    "reinforce_pp": {"algorithm.adv_filter": "none", "algorithm.preclip_min": None, "algorithm.preclip_max": None},
}
_PROFILE_DEFAULTS: dict[str, Layer] = {
    # Section 5.1 and table 8 of https://arxiv.org/abs/2502.10391, which are the schema's own.
    "mmrlhf_paper": {},
    # scripts/train of https://github.com/yfzhang114/MM-RLHF: the loss its trainer computes, and its two-layer head
    "mmrlhf_released": {
        "mm_dpo.beta_mode": "batch_implicit",
        "mm_dpo.margin_weight": 0.1,
        "mm_dpo.sft_weight": 0.25,
        "mm_dpo.sft_mean": "token",
        "critique_rm.head": "mlp",
        # It adds the means over both sides of the pairs, where ours is one mean over responses.
        "critique_rm.critique_weight": 2.0,
        "optimizer.lr": 1e-6,
        "optimizer.warmup_frac": 0.1,
        "optimizer.min_lr_frac": 0.0,
    },
    # scripts/train.sh of https://github.com/yfzhang114/r1_reward
    "r1_released": {
        "algorithm.adv_filter": "r1_released",
        "algorithm.kl_coef": 1e-3,
        "optimizer.lr": 3e-7,
        "reward.scoring": "compat",
    },
}


def read_toml(path: str) -> Layer:
    """Read one configuration file.

    Raises:
        RefusedInput: the file is missing, is not TOML, or holds a key that is no option.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RefusedInput(f"--config {path}: {error.strerror}") from error
    except ValueError as error:  # covers broken TOML and bytes that are not UTF-8
        raise RefusedInput(f"--config {path} is not valid TOML: {error}") from error
    return flatten(tables, source=path)


EmbeddedTable = Literal["cold_start", "reinforce", "preference", "critique_rm", "demonstrations", "mm_dpo"]
_EMBEDDED_TABLES: dict[object, EmbeddedTable] = {
    **dict.fromkeys(PREFERENCE_ALGORITHMS, "preference"),
    "sft": "cold_start",
    "critique_rm": "critique_rm",
    "mm_dpo": "mm_dpo",
}


def embedded_layer(table: EmbeddedTable) -> Layer:
    """The embedded task's own settings for one of its phases, or for one way to learn from preferences."""
    text = resources.files("orchestrator.config").joinpath("digits.toml").read_text(encoding="utf-8")
    return flatten(tomllib.loads(text)[table], source="digits.toml")


def base_layers(chosen: Layer) -> list[Layer]:
    """What ranks between the schema's defaults and the user's own settings, lowest first.

    Args:
        chosen: The user's settings; their algorithm, profile and data path decide.
    """
    algo, profile = chosen.get("algo"), chosen.get("profile")
    layers = [_ALGORITHM_DEFAULTS.get(algo, {})] if isinstance(algo, str) else []
    if chosen.get("data.path", "none") == "none":
        layers.append(embedded_layer(_EMBEDDED_TABLES.get(algo, "reinforce")))
    if isinstance(profile, str):
        layers.append(_PROFILE_DEFAULTS.get(profile, {}))
    return layers


def nested(layer: Layer) -> dict[str, Any]:
    """The layer as sections, as the schema takes it."""
    tree: dict[str, Any] = {}
    for name, value in layer.items():
        *sections, key = name.split(".")
        table = tree
        for section in sections:
            table = table.setdefault(section, {})
        table[key] = value
    return tree


def flatten(tree: dict[str, Any], *, source: str, prefix: str = "") -> Layer:
    """The inverse of ``nested``.

    Args:
        source: Where the tree comes from, for the refusal.
        prefix: Dotted name of the tree's root, with its dot.
    Raises:
        RefusedInput: a key that is no option.
    """
    known = options()
    flat: Layer = {}
    for key, value in tree.items():
        name = prefix + key
        if name in known:
            flat[name] = value
        elif isinstance(value, dict) and any(option.startswith(f"{name}.") for option in known):
            flat |= flatten(value, source=source, prefix=f"{name}.")
        else:
            raise unknown_option(name, written=f"key {name!r} in {source}")
    return flat
