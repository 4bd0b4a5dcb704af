"""docs/options.md, written from the schema: ``python -m tests.options_page`` renews it."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from algorithms.registry import ALGORITHMS, algorithm_class
from algorithms.settings import Section
from orchestrator.config.options import config_type

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
_IDENTITY = Path(__file__).parent / "contract" / "identity.txt"
_MAY_CHANGE = {"fixed": "no", "free": "yes", "longer": "longer"}
"""Whether a run that is resumed may have another value."""
_WIDEST = 60
"""Characters of a default; what a model is asked is longer."""


def page() -> str:
    """The whole file."""
    return "\n".join(
        [
            "# Options",
            "",
            "Every option of `python -m orchestrator.train`, as a flag (`--rollout.temperature 0.7`) or as a key of a",
            "TOML file for `--config` (`temperature = 0.7` under `[rollout]`). Flags count before files, later files",
            "before earlier ones, files before the defaults of an algorithm; `--algo NAME --help` shows those.",
            "*Resumed*: whether a run that is resumed may have another value; `longer` means a larger one, `content`",
            "that the path may change where what lies there does not.",
            "",
            "This page is written from the code: `python -m tests.options_page` renews it.",
            *_tables(config_type()),
            "",
        ]
    )


def _tables(kind: type[Section]) -> Iterator[str]:
    may_change = dict(line.split(maxsplit=1) for line in _IDENTITY.read_text().splitlines())
    readers = _readers()
    for name, section in _sections(kind):
        yield from ("", f"## {name or 'The run'}", "")
        if name:
            doc = (section.__doc__ or "").strip().splitlines()[0]
            yield from (doc + (f" Read by {', '.join(readers[name])}." if name in readers else ""), "")
        yield from ("| option | default | meaning | resumed |", "| --- | --- | --- | --- |")
        for key, field in section.model_fields.items():
            if _section(field.annotation) is not None:
                continue
            dotted = f"{name}.{key}" if name else key
            meaning = _one_line(field.description or "")
            words = _words(field.annotation)
            meaning += f"<br>one of {words}" if words else ""
            default = "required" if field.is_required() else f"`{_shown(field.get_default(call_default_factory=True))}`"
            kept = may_change[dotted]
            yield f"| `{dotted}` | {default} | {meaning} | {_MAY_CHANGE.get(kept, kept)} |"


def _sections(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    yield prefix, kind
    for name, field in kind.model_fields.items():
        if (inner := _section(field.annotation)) is not None:
            yield from _sections(inner, f"{prefix}.{name}" if prefix else name)


def _section(annotation: Any) -> type[Section] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _readers() -> dict[str, list[str]]:
    """The algorithms that bring a section along, by its name."""
    found: dict[str, list[str]] = {}
    for algo in ALGORITHMS:
        for name in algorithm_class(algo).sections:
            found.setdefault(name, []).append(f"`{algo}`")
    return found


def _words(annotation: Any) -> str:
    """The values that an option may have, where they are a few words."""
    if get_origin(annotation) is Annotated:
        return _words(get_args(annotation)[0])
    inner = [one for one in get_args(annotation) if one not in (NoneType, Ellipsis)]
    if inner and all(isinstance(one, str) for one in inner):
        return ", ".join(f"`{word}`" for word in inner)
    return _words(inner[0]) if len(inner) == 1 else ""


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    text = " ".join(map(str, value)) or "-" if isinstance(value, tuple | list) else _one_line(str(value))
    return text if len(text) <= _WIDEST else text[:_WIDEST] + " ..."


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
