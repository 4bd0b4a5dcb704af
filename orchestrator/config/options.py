"""The option list: dotted names and types, read off the schema."""

import difflib
from functools import cache
from typing import Any

from algorithms.settings import Section
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput


def options() -> dict[str, Any]:
    """Type annotation of every option by dotted name, in the schema's order."""
    return dict(_read_off())


@cache
def _read_off() -> dict[str, Any]:
    return _options_of(TrainConfig, prefix="")


def _options_of(section: type[Section], *, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            found |= _options_of(kind, prefix=f"{prefix}{name}.")
        else:
            found[prefix + name] = kind
    return found


def unknown_option(name: str, *, written: str) -> RefusedInput:
    """The refusal of an option that does not exist, with the nearest one that does.

    Args:
        written: What the user wrote and where: ``flag --optimizer.lrr`` or ``key 'optimizer.lrr' in a.toml``.
    """
    known = list(options())
    leaf = name.rpartition(".")[2]
    nearest = [option for option in known if option.rpartition(".")[2] == leaf]
    nearest = nearest or difflib.get_close_matches(name, known, n=1)
    return RefusedInput(f"unknown {written}" + (f"; did you mean {' or '.join(nearest)}?" if nearest else ""))
