"""What the result of a stage was made from, kept beside it: one that fits is not made again, another is never used."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.config.layers import flatten
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.preference_store.side_tables import Fingerprint
from orchestrator.run.folder import write_atomic

MadeFrom = dict[str, Any]
"""Values as JSON has them, by the name that a person knows them by."""


def settings_of(config: TrainConfig, *names: str) -> MadeFrom:
    """Some options and whole sections of a configuration, e.g. ``"run.seed"`` and ``"optimizer"``.

    Raises:
        ValueError: a name that is neither.
    """
    flat = flatten(config.model_dump(mode="json"), source="the run's configuration")
    chosen: MadeFrom = {}
    for name in names:
        found = {option: value for option, value in flat.items() if option == name or option.startswith(f"{name}.")}
        if not found:
            raise ValueError(f"{name!r} is neither an option nor a section")
        chosen |= found
    return chosen


def fingerprint_of(name: str, fingerprint: Fingerprint) -> MadeFrom:
    """The parts of a fingerprint, each under ``name``."""
    return {f"{name}.{part}": value for part, value in asdict(fingerprint).items()}


def fits(file: Path, made_from: MadeFrom) -> bool:
    """True where ``file`` says that something was made, and from just this."""
    return file.is_file() and json.loads(file.read_text()) == made_from


def keep(file: Path, made_from: MadeFrom) -> None:
    """Say in ``file`` what something is made from."""
    write_atomic(file, json.dumps(made_from, indent=1) + "\n")


def begin(file: Path, made_from: MadeFrom, *, afresh: bool) -> None:
    """Say what a stage is about to be made from, or to go on from where it was interrupted.

    Args:
        afresh: What there is does not count.
    Raises:
        RefusedInput: it was begun from something else; names each thing that differs.
    """
    if file.is_file() and not afresh:
        before = json.loads(file.read_text())
        differs = [name for name in made_from.keys() | before.keys() if before.get(name) != made_from.get(name)]
        if differs:
            told = _told(sorted(differs), before, made_from)
            raise RefusedInput(f"{str(file.parent)!r} was made from something else: {told}")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    keep(file, made_from)


def _told(differs: Sequence[str], before: MadeFrom, now: MadeFrom) -> str:
    each = ", ".join(f"{name} was {before.get(name)!r}, this run has {now.get(name)!r}" for name in differs)
    return f"{each}; use another run.dir or run.resume = 'never'"
