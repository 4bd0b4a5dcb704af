"""The options of a run: those of the schema, and those of the sections that algorithms bring along.

All registered algorithms' sections are always there, whatever the run's algorithm, and a user's own beside them: then
one that another algorithm reads is accepted in a file that serves both, and is part of the run's identity.
"""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, cast

from pydantic import Field, create_model

from algorithms.algorithm import Algorithm
from algorithms.registry import ALGORITHMS, algorithm_class
from algorithms.settings import Section
from orchestrator.config.plugins import load_object, plugin_digest
from orchestrator.config.schema import TrainConfig, UsersAlgorithm
from orchestrator.errors import RefusedInput

_LONGEST_NAME = 100
"""Beyond it no option is meant, and likeness takes long to find out."""
_NO_SECTIONS = ("config", "dry_run", "help")
"""Flags that are no options."""


def config_type(algo: object = None) -> type[TrainConfig]:
    """The type of a run's configuration.

    Args:
        algo: As the user wrote it; of interest where it names an algorithm in a file of the user's.
    Raises:
        RefusedInput: that file has no algorithm of this name, or one that cannot be configured.
    """
    if not isinstance(algo, str) or algo in ALGORITHMS or not (":" in algo or algo.endswith(".py")):
        return _made(None)
    found = load_object(algo, option="algo")
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise RefusedInput(f"algo = {algo!r} is no class derived from algorithms.algorithm.Algorithm")
    _check_sections(algo, found.sections)
    made = _made(UsersAlgorithm(algo, found, plugin_digest(algo, option="algo")))
    for name in dict.fromkeys((*found.defaults, *(name for one in found.profiles.values() for name in one))):
        if name not in options(made):
            raise unknown_option(name, known=options(made), written=f"option {name!r} in algo = {algo!r}")
    return made


@cache
def _made(users: UsersAlgorithm | None) -> type[TrainConfig]:
    kinds = _registered() + ([users.kind] if users else [])
    names = (*ALGORITHMS, *([users.text] if users else []))
    profiles = dict.fromkeys(("paper", *(name for kind in kinds for name in kind.profiles)))
    told, one_of = TrainConfig.model_fields, cast("Any", Literal)  # made of tables, which no checker knows
    made = create_model(
        "RunConfig",
        __base__=TrainConfig,
        algo=(one_of[names], Field(description=told["algo"].description)),
        profile=(one_of[tuple(profiles)], Field(default="paper", description=told["profile"].description)),
        **{name: (section, section()) for name, section in _sections(kinds).items()},  # type: ignore[call-overload]
    )
    made.users = users
    return made


def _registered() -> list[type[Algorithm]]:
    return [algorithm_class(name) for name in ALGORITHMS]


def _sections(kinds: Iterable[type[Algorithm]]) -> dict[str, type[Section]]:
    return {name: section for kind in kinds for name, section in kind.sections.items()}


def _check_sections(algo: str, sections: Mapping[str, type[Section]]) -> None:
    """Refuse sections of a user's algorithm that cannot stand beside the others."""
    known = _sections(_registered())
    for name, section in sections.items():
        if section is known.get(name):
            continue
        if name in known or name in _NO_SECTIONS or name in TrainConfig.model_fields or hasattr(TrainConfig, name):
            raise RefusedInput(f"algo = {algo!r}: the name of its section {name!r} is taken")
        if not name.isidentifier() or name.startswith("_"):
            raise RefusedInput(f"algo = {algo!r}: its section {name!r} has a name that no option can have")
        is_section = isinstance(section, type) and issubclass(section, Section)
        if not is_section or any(field.is_required() for field in section.model_fields.values()):
            raise RefusedInput(
                f"algo = {algo!r}: its section {name!r} is no class derived from algorithms.settings.Section whose "
                "options all have a default"
            )


@cache
def options(kind: type[TrainConfig] | None = None) -> Mapping[str, Any]:
    """Type annotation of every option by dotted name, in the schema's order."""
    return _options_of(kind or config_type(), prefix="")


def _options_of(section: type[Section], *, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            found |= _options_of(kind, prefix=f"{prefix}{name}.")
        else:
            found[prefix + name] = kind
    return found


def option_names() -> list[str]:
    """Dotted name of every option that a run without a user's algorithm has, in the schema's order."""
    return list(options())


def unknown_option(name: str, *, known: Iterable[str], written: str) -> RefusedInput:
    """The refusal of an option that does not exist, with the nearest one that does.

    Args:
        written: What the user wrote and where: ``flag --optimizer.lrr`` or ``key 'optimizer.lrr' in a.toml``.
    """
    leaf, known = name.rpartition(".")[2], list(known)
    nearest = [option for option in known if option.rpartition(".")[2] == leaf]
    if not nearest and len(name) <= _LONGEST_NAME:
        nearest = difflib.get_close_matches(name, known, n=1)
    return RefusedInput(f"unknown {written}" + (f"; did you mean {' or '.join(nearest)}?" if nearest else ""))
