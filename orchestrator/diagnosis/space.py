"""Room on the disk for the checkpoints that a run will write, and in shared memory for weights and objects."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.diagnosis.finding import GIB, Finding, Patient, existing

if TYPE_CHECKING:
    from orchestrator.cluster.memory_plan import ModelShape

_ADAM_BYTES = 12
"""Of a trained number: its float32 master and two moments."""
_MIN_DISK_GIB = 5.0
"""Of a machine that is asked about without a run."""
_SHARED = Path("/dev/shm")
_OTHER_GIB = 0.5
"""Logs, rollouts and pictures of a run."""


def disk(patient: Patient) -> Iterator[Finding]:
    """What the run may write where it writes it, together with the runs of the same file before it."""
    needs, home = _OTHER_GIB * GIB, existing(patient.folder)
    for one in (*patient.before, patient):
        if existing(one.folder).stat().st_dev == home.stat().st_dev:
            needs += max(0.0, _checkpoints(one)[1] - _held(one.folder / "checkpoints"))
    count, size = _checkpoints(patient)
    what = f"{count} checkpoints of {size / max(1, count) / GIB:.1f} GiB and the rest take {needs / GIB:.1f} GiB"
    yield judge_disk(home, needs / GIB, what)


def bare_disk() -> Iterator[Finding]:
    """Without a run: enough for a small one."""
    yield judge_disk(Path.cwd(), _MIN_DISK_GIB, f"{_MIN_DISK_GIB:g} GiB are wanted for a small run")


def judge_disk(folder: Path, needs_gib: float, what: str) -> Finding:
    """Free space in a folder against what will be written there.

    Args:
        what: The sum in words.
    """
    free = shutil.disk_usage(folder).free / GIB
    told = f"{free:.1f} GiB are free in {folder}; {what}"
    if not os.access(folder, os.W_OK):
        return Finding("FAIL", f"{folder} cannot be written to", "choose another run.dir")
    if free >= needs_gib:
        return Finding("ok", told)
    return Finding("FAIL", told, "free some, lower run.keep_checkpoints, or choose a run.dir elsewhere")


def shared_memory(patient: Patient) -> Iterator[Finding]:
    """Weights go to the engines of one machine through it, and Ray keeps its objects there."""
    from orchestrator.cluster.choices import sync_backend
    from orchestrator.cluster.launch import OBJECT_STORE_BYTES

    config, (_, plan) = patient.settled, patient.placed
    if config.placement.cluster is not None:
        yield Finding("ok", "the described cluster's, not looked at")
        return
    shape, through = _shape(patient), 0.0
    if shape is not None and plan.workers_of("rollout") and sync_backend(config, plan) == "shared_memory":
        through = float(shape.num_params * _width(patient))
    yield judge_shared_memory(_SHARED, through / GIB, OBJECT_STORE_BYTES / GIB)


def bare_shared_memory() -> Iterator[Finding]:
    """Without a run: Ray's objects alone."""
    from orchestrator.cluster.launch import OBJECT_STORE_BYTES

    yield judge_shared_memory(_SHARED, 0.0, OBJECT_STORE_BYTES / GIB)


def judge_shared_memory(folder: Path, weights_gib: float, objects_gib: float) -> Finding:
    """Free shared memory against the weights of a sync, which need it, and Ray's objects, which may go to the disk."""
    todo = f"make {folder} larger: --shm-size of docker, an emptyDir of medium Memory in Kubernetes"
    if not folder.is_dir():
        return Finding("warn", f"there is no {folder}, so weights and objects go through the disk", todo)
    free = shutil.disk_usage(folder).free / GIB
    what = f"weights take {weights_gib:.1f} GiB of it, Ray's objects {objects_gib:.1f} GiB"
    told = f"{free:.1f} GiB are free in {folder}; {what}"
    if free < weights_gib:
        return Finding("FAIL", told, todo)
    if free < weights_gib + objects_gib:
        return Finding("warn", f"{told}, and so some to the disk", todo)
    return Finding("ok", told)


def _checkpoints(patient: Patient) -> tuple[int, float]:
    """How many there may be at once, the one that is being written among them, and their bytes."""
    config, shape = patient.settled, _shape(patient)
    steps, every = config.run.steps, config.run.checkpoint_every
    count = min(-(-steps // every), config.run.keep_checkpoints + 1 + (config.eval.best is not None))
    if shape is None:
        return count, 0.0
    plain = shape.num_trainable if config.model.lora_rank is not None else shape.num_params
    one = plain * _width(patient) + shape.num_trainable * _ADAM_BYTES
    return count, float(count * one * (2 if config.needs.critic is not None else 1))


def _shape(patient: Patient) -> "ModelShape | None":
    from orchestrator.cluster.memory_plan import model_shape

    model = patient.settled.model
    return None if model.path is None else model_shape(model.path, model.freeze, lora_rank=model.lora_rank)


def _width(patient: Patient) -> int:
    return 4 if patient.settled.model.dtype == "float32" else 2


def _held(folder: Path) -> float:
    """Bytes of what is there already, which a run that goes on replaces."""
    return float(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())) if folder.is_dir() else 0.0
