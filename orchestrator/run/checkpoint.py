"""Checkpoints that appear whole, and the exact state a resumed run continues from."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.run.ahead import FILE, AheadGroup, read_ahead, write_ahead
from orchestrator.run.checkpoint_files import (
    MANIFEST,
    DamagedCheckpoint,
    read_object,
    read_sealed,
    refuse_changed_files,
    sealed,
)
from orchestrator.run.cursor import PromptCursor
from orchestrator.run.folder import RunFolder, flush, write_atomic
from orchestrator.run.identity import Identity, refuse_another

if TYPE_CHECKING:  # it imports Ray, and another run is refused without
    from orchestrator.cluster.pool import WorkerPool


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
    num_critic_updates: int = 0
    """Optimizer steps that the critic has taken."""
    learner_state: Mapping[str, float] = field(default_factory=dict)
    """What the algorithm carries from step to step."""
    ahead: tuple[AheadGroup, ...] = ()
    """Sampled and not learned from yet, in the order of issue; ``cursor`` is behind it."""

    @property
    def by_role(self) -> dict[str, int]:
        """Optimizer steps taken, by the role that took them."""
        return {"policy": self.num_updates, "critic": self.num_critic_updates}


def save_checkpoint(
    folder: RunFolder,
    pool: "WorkerPool",
    progress: Progress,
    *,
    identity: Identity,
    keep: int,
    best: int | None = None,
    extra: Mapping[str, Any],
    deadline_s: float,
) -> Path:
    """Write ``checkpoints/step_N`` with all that learns; its manifest, written last, makes it exist.

    Args:
        identity: Of the run, so that another does not continue it.
        keep: Newest checkpoints that stay.
        best: Step whose checkpoint stays too.
        extra: Figures for people and later stages, e.g. the last evaluation.
    """
    target = folder.checkpoint(progress.step)
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for workers in pool.trained:
        workers.shared("save", str(target / (workers.role.saved_in or "")), deadline_s=deadline_s)
    if progress.ahead:
        write_ahead(target, progress.ahead)
    for file in target.rglob("*"):
        flush(file)
    manifest = {
        "step": progress.step,
        "num_updates": progress.num_updates,
        "policy_version": progress.policy_version,
        "cursor": progress.cursor.to_json(),
        "mismatch_strikes": progress.mismatch_strikes,
        "num_critic_updates": progress.num_critic_updates,
        "learner_state": dict(progress.learner_state),
        **({"ahead": FILE} if progress.ahead else {}),
        "identity": identity,
        **extra,
    }
    write_atomic(target / MANIFEST, sealed(target, manifest))
    folder.prune(keep=keep, besides=best)
    return target


def find_checkpoint(folder: RunFolder, config: TrainConfig, identity: Identity) -> tuple[Path, Progress] | None:
    """The checkpoint to resume from, by ``run.resume``; None to start afresh.

    Raises:
        RefusedInput: ``must`` without a checkpoint; or one of another run, or one that is damaged.
    """
    checkpoint = refuse_another_run(folder, config, identity)
    if checkpoint is None:
        if config.run.resume == "must":
            raise RefusedInput(f"run.resume = 'must', but {str(folder.root)!r} holds no complete checkpoint")
        return None
    with _refused(checkpoint):
        return checkpoint, _progress(checkpoint)


def _progress(checkpoint: Path) -> Progress:
    refuse_changed_files(checkpoint)
    manifest = read_sealed(checkpoint)
    return Progress(
        step=manifest["step"],
        num_updates=manifest["num_updates"],
        policy_version=manifest["policy_version"],
        cursor=_cursor(manifest["cursor"]),
        mismatch_strikes=manifest["mismatch_strikes"],
        num_critic_updates=manifest.get("num_critic_updates", 0),
        learner_state=manifest.get("learner_state", {}),
        ahead=read_ahead(checkpoint) if "ahead" in manifest else (),
    )


def refuse_another_run(
    folder: RunFolder, config: TrainConfig, identity: Identity, *, whole: bool = True, stage: bool = False
) -> Path | None:
    """The newest checkpoint, which this run may continue; None where it starts afresh.

    Args:
        whole, stage: see ``differences``.
    Raises:
        RefusedInput: it is of another run, or of a version that did not say.
    """
    found = folder.complete_checkpoints()
    if config.run.resume == "never" or not found:
        return None
    before = identity_of(folder, found[-1])
    refuse_another(found[-1].name, before, identity, whole=whole, stage=stage)
    return found[-1]


def finished_checkpoint(folder: RunFolder, config: TrainConfig, identity: Identity, *, stage: bool) -> Path | None:
    """The checkpoint of a run that has taken all its steps; None where there are steps to take.

    Args:
        stage: see ``differences``.
    Raises:
        RefusedInput: see ``refuse_another_run``.
    """
    checkpoint = refuse_another_run(folder, config, identity, stage=stage)
    if checkpoint is None or checkpoint != folder.checkpoint(config.run.steps):
        return None
    with _refused(checkpoint):
        refuse_changed_files(checkpoint)
    return checkpoint


def identity_of(folder: RunFolder, checkpoint: Path) -> Identity:
    """What a checkpoint says of the run that left it.

    Raises:
        RefusedInput: nothing, or its manifest is broken.
    """
    with _refused(checkpoint):
        identity = read_object(checkpoint).get("identity")
        if isinstance(identity, dict):
            read_sealed(checkpoint)  # what has changed must not be compared
            return identity
    raise RefusedInput(
        f"run.resume: checkpoint {checkpoint.name} was written by an older version, which did not say what it was "
        "made from; use another run.dir or run.resume = 'never'"
    )


def _cursor(state: Mapping[str, Any]) -> PromptCursor:
    try:
        return PromptCursor.from_json(state)
    except ValueError as error:
        raise DamagedCheckpoint(f"a {MANIFEST} with a bad cursor: {error}") from error


@contextmanager
def _refused(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except DamagedCheckpoint as error:
        raise RefusedInput(
            f"run.resume: checkpoint {checkpoint.name} has {error}; use another run.dir or run.resume = 'never', or "
            "remove that checkpoint to go on from the one before it"
        ) from error
