"""Checkpoints that appear whole, and the exact state a resumed run continues from."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.batching import PromptCursor
from orchestrator.cluster.pool import WorkerPool
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder, flush, write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands after ``step`` steps."""

    step: int
    num_updates: int
    """Optimizer steps taken; drives the learning-rate schedule."""
    policy_version: int
    cursor: PromptCursor
    mismatch_strikes: int = 0
    """Steps in a row whose log-prob mismatch was beyond its bound."""


def save_checkpoint(
    folder: RunFolder,
    pool: WorkerPool,
    progress: Progress,
    *,
    config: TrainConfig,
    fingerprint: str,
    extra: Mapping[str, Any],
    deadline_s: float,
) -> Path:
    """Write ``checkpoints/step_N`` with ``policy/`` and ``state/``; its manifest, written last, makes it exist.

    Args:
        fingerprint: Of the training data, so that a resume on other data is refused.
        extra: Figures for people and later stages, e.g. the last evaluation.
    """
    target = folder.checkpoint(progress.step)
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    pool.policy_call("save", str(target), deadline_s=deadline_s)
    for file in target.rglob("*"):
        flush(file)
    manifest = {
        "step": progress.step,
        "num_updates": progress.num_updates,
        "policy_version": progress.policy_version,
        "cursor": progress.cursor.to_json(),
        "mismatch_strikes": progress.mismatch_strikes,
        "data_fingerprint": fingerprint,
        "algo": config.algo,
        "num_ranks": config.policy.num_ranks,
        "zero_stage": config.policy.zero_stage,
        **_adapters(config),
        **extra,
    }
    write_atomic(target / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    folder.prune(keep=config.run.keep_checkpoints)
    return target


def find_checkpoint(folder: RunFolder, config: TrainConfig, *, fingerprint: str) -> tuple[Path, Progress] | None:
    """The checkpoint to resume from, by ``run.resume``; None to start afresh.

    Raises:
        RefusedInput: ``must`` without a checkpoint; or one of other data, algorithm or sharding.
    """
    found = folder.complete_checkpoints()
    if config.run.resume == "never" or not found:
        if config.run.resume == "must":
            raise RefusedInput(f"run.resume = 'must', but {str(folder.root)!r} holds no complete checkpoint")
        return None
    checkpoint = found[-1]
    manifest = folder.read_manifest(checkpoint)
    here = {
        "data_fingerprint": fingerprint,
        "algo": config.algo,
        "num_ranks": config.policy.num_ranks,
        "zero_stage": config.policy.zero_stage,
        **_adapters(config),
    }
    for name, value in here.items():
        saved = manifest.get(name)  # None as well where the checkpoint is older than adapters are
        if saved != value:
            raise RefusedInput(
                f"run.resume: checkpoint {checkpoint.name} has {name} = {saved!r}, this run has {value!r}; "
                "use another run.dir or run.resume = 'never'"
            )
    return checkpoint, Progress(
        step=manifest["step"],
        num_updates=manifest["num_updates"],
        policy_version=manifest["policy_version"],
        cursor=PromptCursor.from_json(manifest["cursor"]),
        mismatch_strikes=manifest["mismatch_strikes"],
    )


def _adapters(config: TrainConfig) -> dict[str, Any]:
    """What ``policy/`` means besides its tensors."""
    return {name: getattr(config.model, name) for name in ("lora_rank", "lora_alpha", "quantize")}
