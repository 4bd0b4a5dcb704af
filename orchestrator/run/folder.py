"""Where a run keeps its files, and how files appear: whole or not at all."""

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import IO, Any, BinaryIO

from orchestrator.errors import RefusedInput

_WRITTEN_INTO = (
    "metrics.jsonl", "log.jsonl", "reward_service.log", "verdicts.sqlite", "critiques.sqlite", "scores.sqlite",
    "answers.sqlite",
)  # fmt: skip
"""Files whose names can be guessed and that are opened where they lie, instead of being replaced whole."""
_STEP_NAME = re.compile(r"step_(\d{6,})(\.parquet|\.json)?")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` so that readers see all of it or nothing."""
    with written_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def written_atomic(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name; behind the block it is flushed to disk and renamed, unless the block fails."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)  # a crash left it, or somebody planted a link: never written through
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, so that they survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RunFolder:
    """Paths of one run, the lock that keeps it one driver's, and what a resume must tidy up."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rollouts = root / "rollouts"
        self.checkpoints = root / "checkpoints"
        self.evaluations = root / "evaluations"
        self.metrics = root / "metrics.jsonl"
        self.config = root / "config.json"
        self.manifest = root / "manifest.json"
        self.log = root / "log.jsonl"
        self.report = root / "report.html"
        self._lock: IO[str] | None = None

    def create(self) -> None:
        """Make the folders and lock the run against a second driver.

        The kernel drops the lock when the process ends, however it ends.

        Raises:
            RefusedInput: another driver holds the lock, the folders cannot be made, or what is in them is not ours.
        """
        self.refuse_planted()
        try:
            self.rollouts.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
            lock = _open_lock(self.root / ".lock")
        except OSError as error:
            raise RefusedInput(f"run.dir {str(self.root)!r} cannot be made: {error.strerror}") from error
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise RefusedInput(f"run.dir {str(self.root)!r} is in use by another run") from error
        self._lock = lock

    def refuse_planted(self) -> None:
        """Refuse what bears the name of a file of ours and is none: a link would be written through, a pipe waited for.

        Raises:
            RefusedInput: naming it.
        """
        for name in _WRITTEN_INTO:
            file = self.root / name
            if file.is_symlink() or (file.exists() and not file.is_file()):
                what = "a link" if file.is_symlink() else "no plain file"
                raise RefusedInput(f"run.dir {str(self.root)!r}: {name} in it is {what}")

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def rollout_file(self, step: int) -> Path:
        """Rollouts of one step."""
        return self.rollouts / f"step_{step:06d}.parquet"

    def evaluation_file(self, step: int) -> Path:
        """Held-out evaluation after ``step`` steps."""
        return self.evaluations / f"step_{step:06d}.json"

    def rollout_steps(self) -> list[int]:
        """Steps whose rollouts are there, in order."""
        return sorted(_numbered(self.rollouts))

    def evaluation_steps(self) -> list[int]:
        """Steps after which an evaluation was kept, in order."""
        return sorted(_numbered(self.evaluations))

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint taken after ``step`` steps."""
        return self.checkpoints / f"step_{step:06d}"

    def complete_checkpoints(self) -> list[Path]:
        """Checkpoints that exist, oldest first: those whose manifest, written last, is there."""
        found = sorted(_numbered(self.checkpoints).items())
        return [folder for _, folder in found if (folder / "manifest.json").is_file()]

    def read_manifest(self, checkpoint: Path) -> dict[str, Any]:
        """The manifest of a complete checkpoint."""
        return json.loads((checkpoint / "manifest.json").read_text())

    def prune(self, *, keep: int, besides: int | None = None) -> None:
        """Remove all but the newest ``keep`` complete checkpoints, and that of the step ``besides``."""
        spared = None if besides is None else self.checkpoint(besides)
        for old in self.complete_checkpoints()[:-keep]:
            if old != spared:
                _remove_checkpoint(old)

    def metrics_rows(self) -> tuple[list[dict[str, Any]], int]:
        """Rows of ``metrics.jsonl``, and how many of its lines are none, as a crash or a damage leaves them."""
        lines = self.metrics.read_bytes().split(b"\n") if self.metrics.is_file() else []
        rows = [_row_of(line) for line in lines if line.strip()]
        return [row for row in rows if row is not None], rows.count(None)

    def truncate_after(self, step: int) -> list[str]:
        """Drop rows, rollouts, evaluations and checkpoints of steps after ``step``, and what a crash left half written.

        A run that starts afresh passes -1: step 0 has a row of its own, the evaluation before training.

        Returns:
            What was dropped because it was half or damaged, a sentence each.
        """
        told: list[str] = []
        # Checkpoints first: one that outlived its metrics rows would be resumed from without them.
        complete = set(self.complete_checkpoints())
        for number, folder in _numbered(self.checkpoints).items():
            if folder not in complete:
                shutil.rmtree(folder)
                told.append(f"{folder.name} was no whole checkpoint, without its manifest.json, and is removed")
            elif number > step:
                _remove_checkpoint(folder)
        if self.metrics.is_file():
            rows, num_torn = self.metrics_rows()
            kept = [json.dumps(row) for row in rows if row["step"] <= step]
            write_atomic(self.metrics, "".join(row + "\n" for row in kept))
            if num_torn:
                told.append(f"metrics.jsonl had {num_torn} line{'s' * (num_torn > 1)} that no row can be read from")
        for number, file in (*_numbered(self.rollouts).items(), *_numbered(self.evaluations).items()):
            if number > step:
                file.unlink()
        for folder in (self.root, self.rollouts):
            for partial in folder.glob(".*.partial"):
                partial.unlink()
        return told


def _open_lock(path: Path) -> IO[str]:
    """Open a file that is nothing but locked: not through a link, and without a change to what it holds."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        lock = os.fdopen(os.open(path, flags, 0o600), "w")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, f"{path.name} in it is a link") from error
    if not stat.S_ISREG(os.fstat(lock.fileno()).st_mode):
        lock.close()
        raise OSError(errno.EINVAL, f"{path.name} in it is no plain file")
    return lock


def _remove_checkpoint(folder: Path) -> None:
    # Without its manifest a half-removed checkpoint does not exist, whenever this is interrupted.
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder)


def _numbered(folder: Path) -> dict[int, Path]:
    """What bears a step's name in ``folder``, by step; nothing where there is no such folder."""
    if not folder.is_dir():
        return {}
    named = {path: _STEP_NAME.fullmatch(path.name) for path in folder.iterdir()}
    return {int(match[1]): path for path, match in named.items() if match}


def _row_of(line: bytes) -> dict[str, Any] | None:
    """A metrics row; None for a line that a crash tore."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int and row["step"] >= 0 else None
