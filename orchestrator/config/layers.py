"""Layers of settings, flat by dotted name, and the order in which they override each other."""

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

from algorithms.algorithm import Algorithm
from orchestrator.config.options import options, unknown_option
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from workers import given_files
from workers.given_files import UnusableFile

Layer = dict[str, Any]
"""Values by dotted name, e.g. ``{"optimizer.lr": 1e-4}``."""

EmbeddedTable = Literal["cold_start", "reinforce", "preference", "critique_rm", "demonstrations", "mm_dpo"]


def read_toml(path: str) -> dict[str, Any]:
    """The tables of one configuration file.

    Raises:
        RefusedInput: the file cannot be read, or is not TOML.
    """
    try:
        return given_files.read_toml(path)
    except UnusableFile as error:
        raise RefusedInput(f"--config {path} {error}") from error


def embedded_layer(table: EmbeddedTable, task: str) -> Layer:
    """An embedded task's own settings for one of its phases, or for one way to learn from preferences.

    Raises:
        RefusedInput: the task has nothing of that kind to learn from, or there is no such task.
    """
    try:
        text = resources.files("orchestrator.config").joinpath(f"{task}.toml").read_text(encoding="utf-8")
    except OSError:
        return {}  # the schema refuses its name
    tables = tomllib.loads(text)
    if table not in tables:
        raise RefusedInput(f"task = {task!r} is answered and rewarded, not {table}: give data.path, or another task")
    return flatten(tables[table], known=options(), source=f"{task}.toml")


def embedded_defaults(kind: type[Algorithm], algo: str, task: str) -> Layer:
    """An embedded task's own settings for an algorithm, by what it needs with its own defaults.

    Raises:
        RefusedInput: it has nothing that the algorithm could learn from.
    """
    needs = kind(algo, {name: section() for name, section in kind.sections.items()}).needs
    table: EmbeddedTable = "reinforce" if needs.data[0] == "prompts" else "cold_start"
    if needs.facts:
        raise RefusedInput(
            f"algo = {algo!r} needs data.path: nothing is known to be true of the embedded tasks' samples"
        )
    if needs.data[0] == "preferences":
        table = "mm_dpo" if needs.margins else "critique_rm" if needs.critiques else "preference"
    return embedded_layer(table, task)


def profile_defaults(kind: type[Algorithm], chosen: Layer, sources: Mapping[str, str]) -> Layer:
    """What the user's profile sets.

    Args:
        chosen: The user's settings.
        sources: Where each comes from.
    Raises:
        RefusedInput: the algorithm has no such profile.
    """
    name, profiles = chosen.get("profile", "paper"), {"paper": {}, **kind.profiles}
    if name not in list(profiles):
        has = ", ".join(map(repr, profiles))
        raise RefusedInput(f"profile = {name!r} {sources['profile']}: algo = {chosen['algo']!r} has {has}")
    return dict(profiles[name])


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


def flatten(tree: Mapping[str, Any], *, known: Mapping[str, Any], source: str, prefix: str = "") -> Layer:
    """The inverse of ``nested``.

    Args:
        known: All options.
        source: Where the tree comes from, for the refusal.
        prefix: Dotted name of the tree's root, with its dot.
    Raises:
        RefusedInput: a key that is no option.
    """
    flat: Layer = {}
    for key, value in tree.items():
        name = prefix + key
        if name in known:
            flat[name] = value
        elif isinstance(value, dict) and any(option.startswith(f"{name}.") for option in known):
            flat |= flatten(value, known=known, source=source, prefix=f"{name}.")
        else:
            raise unknown_option(name, known=known, written=f"key {name!r} in {source}")
    return flat


def layer_of(config: TrainConfig, *, mode: Literal["python", "json"] = "python") -> Layer:
    """Every option of a run with its value."""
    return flatten(config.model_dump(mode=mode), known=options(type(config)), source="the run's configuration")
