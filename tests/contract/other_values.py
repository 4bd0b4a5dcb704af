"""Another valid value for any option, made from its type: what a walk over all options changes them to."""

from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ValidationError

from algorithms.settings import Section
from orchestrator.config import TrainConfig
from orchestrator.config.benchmarks import EvalBenchmark
from orchestrator.config.options import options


def other_values(config: TrainConfig, name: str) -> list[Any]:
    """Values of an option that its section takes and that it has not; at least one."""
    section, leaf = section_of(config, name), name.rpartition(".")[2]
    old = getattr(section, leaf)
    found = [v for v in _made(options()[name], old) if v != old and _is_taken(section, leaf, v)]
    assert found, f"no other value of {name} is known: teach other_values its type"
    return found


def value_of(config: TrainConfig, name: str) -> Any:
    """The value of an option."""
    return getattr(section_of(config, name), name.rpartition(".")[2])


def with_value(config: TrainConfig, name: str, value: Any) -> TrainConfig:
    """The configuration with one option changed, whatever other options it would ask for."""
    return _changed(config, name.split("."), value)


def section_of(config: TrainConfig, name: str) -> Section:
    """The section that an option is in."""
    section: Any = config
    for part in name.split(".")[:-1]:
        section = getattr(section, part)
    return section


def _changed(section: Any, parts: list[str], value: Any) -> Any:
    first, *rest = parts
    return section.model_copy(update={first: _changed(getattr(section, first), rest, value) if rest else value})


def _made(annotation: Any, old: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _made(get_args(annotation)[0], old)
    members = get_args(annotation)
    if NoneType in members:
        return [None, *(v for member in members if member is not NoneType for v in _made(member, old))]
    if get_origin(annotation) is Literal:
        return list(members)
    if get_origin(annotation) is tuple:
        kind, length = members[0], 1 if members[-1] is ... else len(members)
        return [(value,) * length for value in _made(kind, None)] + ([()] if members[-1] is ... else [])
    if get_origin(annotation) is dict:
        return [{"prompt": "problem", "path": "img"}, {}]
    if annotation is EvalBenchmark:
        return [EvalBenchmark(name="pope", path="elsewhere")]
    if annotation is bool:
        return [True, False]
    if annotation is int:
        return [(old or 0) + 1, (old or 2) - 1]
    return [(old or 0.0) / 2, (old or 1.0) + 0.25, 0.5] if annotation is float else ["elsewhere"]


def _is_taken(section: Section, leaf: str, value: Any) -> bool:
    if isinstance(section, TrainConfig):
        return True  # its checks are of several options together
    try:
        type(section).model_validate({**section.model_dump(), leaf: value})
    except ValidationError:
        return False
    return True
