"""Where a run keeps its files, and how files appear: whole or not at all."""

import json
import os
import shutil
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import IO, Any

from orchestrator.errors import RefusedInput


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` under a temporary name, flush it to disk, then rename; readers see all of it or nothing."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RunFolder:
    """Paths of one run, and what a resume must tidy up."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rollouts = root / "rollouts"
        self.checkpoints = root / "checkpoints"
        self.metrics = root / "metrics.jsonl"
        self._lock: IO[str] | None = None

    def create(self) -> None:
        """Make the folders and lock the run against a second driver.

        Raises:
            RefusedInput: another driver holds the lock.
        """
        self.rollouts.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        self._lock = (self.root / ".lock").open("w")
        try:
            flock(self._lock, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            raise RefusedInput(f"run.dir {str(self.root)!r} is in use by another run") from error

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def rollout_file(self, step: int) -> Path:
        """Rollouts of one step."""
        return self.rollouts / f"step_{step:06d}.parquet"

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint taken after ``step`` steps."""
        return self.checkpoints / f"step_{step:06d}"

    def complete_checkpoints(self) -> list[Path]:
        """Checkpoints that exist, oldest first: those whose manifest, written last, is there."""
        if not self.checkpoints.is_dir():
            return []
        return sorted(c for c in self.checkpoints.glob("step_*") if (c / "manifest.json").is_file())

    def read_manifest(self, checkpoint: Path) -> dict[str, Any]:
        """The manifest of a complete checkpoint."""
        return json.loads((checkpoint / "manifest.json").read_text())

    def prune(self, *, keep: int) -> None:
        """Remove all but the newest ``keep`` complete checkpoints."""
        for old in self.complete_checkpoints()[:-keep]:
            # Without its manifest a half-removed checkpoint does not exist, whenever this is interrupted.
            (old / "manifest.json").unlink()
            shutil.rmtree(old)

    def truncate_after(self, step: int) -> None:
        """Drop metrics rows, rollouts and checkpoints of steps after ``step``, and a torn last metrics line."""
        if self.metrics.is_file():
            rows = [line for line in self.metrics.read_text().splitlines() if _step_of(line) in range(step + 1)]
            write_atomic(self.metrics, "".join(row + "\n" for row in rows))
        for file in self.rollouts.glob("step_*.parquet"):
            if int(file.stem.removeprefix("step_")) > step:
                file.unlink()
        complete = set(self.complete_checkpoints())
        for folder in self.checkpoints.glob("step_*"):
            if folder not in complete or int(folder.name.removeprefix("step_")) > step:
                shutil.rmtree(folder)


def _step_of(line: str) -> int:
    """Step of a metrics row; -1 for a line that a crash tore."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return -1
