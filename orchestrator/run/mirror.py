"""Copies of checkpoints at another address, made beside the run: ``run.mirror``.

consumes          waits for                       produces
a checkpoint      the copy before it (skipped     ADDRESS/PARENT/RUN/checkpoints/step_N, its manifest
                  where a newer one waits)        last

A step never waits for it, only the end of the run does. A copy that fails is tried again, then counted and said; what
the run writes is safe in its own folder. What is waiting is a tree of hard links, so that pruning takes nothing away.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from tenacity import Retrying, stop_after_attempt, stop_when_event_set, wait_exponential

from algorithms.figures import Figure
from orchestrator.errors import RefusedInput, one_line
from orchestrator.run.folder import RunFolder

FIGURES = (
    Figure("mirror/step", "step of the newest checkpoint whose copy at `run.mirror` is whole; missing without one"),
    Figure("mirror/failed", "checkpoints whose copy was given up since the run was started or resumed"),
)
_MANIFEST = "manifest.json"
_BESIDE = ("config.json", _MANIFEST, "metrics.jsonl")
"""Small files of the run that a checkpoint is continued with."""
_ATTEMPTS = 5
_LONGEST_PAUSE_S = 30.0
_MOST_CHARS = 200
_LAST_COPY_S = 1800.0
"""Longest time that the end of a run waits for its last copy, seconds."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One checkpoint to copy."""

    links: Path
    """Hard links to all its files."""
    step: str
    kept: tuple[str, ...]
    """Checkpoints that the run keeps by now; others are removed once this one is whole."""


class Mirror:
    """One thread that copies the newest checkpoint."""

    def __init__(self, folder: RunFolder, address: str) -> None:
        """Refuse an address that cannot be written to.

        Raises:
            RefusedInput: naming it.
        """
        self._folder, self._address = folder, address
        self._files, self._root = place(address, folder.root)
        self._waiting_room = folder.root / ".mirror"
        self._probe()
        shutil.rmtree(self._waiting_room, ignore_errors=True)
        self._lock = threading.Condition()
        self._asked: _Asked | None = None
        self._closing = False
        self._given_up = threading.Event()
        self._copied: int | None = None
        self._failed = 0
        self.faults = list[str]()
        """What the console has not said yet."""
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    def send(self, checkpoint: Path) -> None:
        """Copy a whole checkpoint soon; one that still waits is let go in its favour."""
        links = self._waiting_room / checkpoint.name
        shutil.rmtree(links, ignore_errors=True)
        try:
            shutil.copytree(checkpoint, links, copy_function=os.link)
        except OSError as error:  # a file system without hard links
            self._give_up(checkpoint.name, error)
            return
        kept = tuple(path.name for path in self._folder.complete_checkpoints())
        with self._lock:
            if self._asked is not None and self._asked.links != links:
                shutil.rmtree(self._asked.links, ignore_errors=True)
            self._asked = _Asked(links, checkpoint.name, kept)
            self._lock.notify_all()

    def figures(self) -> dict[str, float]:
        """See ``FIGURES``."""
        copied = {} if self._copied is None else {"mirror/step": float(self._copied)}
        return {**copied, "mirror/failed": float(self._failed)}

    def said(self) -> list[str]:
        """Faults since the last call."""
        with self._lock:
            told, self.faults = self.faults, []
        return told

    def close(self, *, deadline_s: float = _LAST_COPY_S) -> None:
        """Wait for what is to be copied, at most so long."""
        until = time.monotonic() + deadline_s
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._given_up.set()
            with self._lock:
                self.faults.append(f"run.mirror: the last copy was not whole after {deadline_s:.0f} s")
        else:
            shutil.rmtree(self._waiting_room, ignore_errors=True)

    def _probe(self) -> None:
        file = f"{self._root}/.raylign"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(file, b"")
            self._files.rm_file(file)
        except Exception as error:  # every store of objects has errors of its own
            raise RefusedInput(f"run.mirror = {self._address!r} cannot be written to: {_told(error)}") from error

    def _work(self) -> None:
        while (asked := self._next()) is not None:
            try:
                self._copy(asked)
                self._copied = int(asked.step.removeprefix("step_"))
            except Exception as error:  # noqa: BLE001 - likewise; counted and said
                self._give_up(asked.step, error)
            finally:
                shutil.rmtree(asked.links, ignore_errors=True)

    def _give_up(self, step: str, error: Exception) -> None:
        with self._lock:
            self._failed += 1
            self.faults.append(f"run.mirror: {step} was not copied: {_told(error)}")

    def _next(self) -> _Asked | None:
        with self._lock:
            self._lock.wait_for(lambda: self._asked is not None or self._closing)
            asked, self._asked = self._asked, None
            return asked

    def _copy(self, asked: _Asked) -> None:
        target = f"{self._root}/checkpoints/{asked.step}"
        again = Retrying(
            stop=stop_after_attempt(_ATTEMPTS) | stop_when_event_set(self._given_up),
            wait=wait_exponential(max=_LONGEST_PAUSE_S),
            reraise=True,
        )
        # One that is there already, of a run that was begun anew, does not exist while it is replaced.
        again(_remove, self._files, f"{target}/{_MANIFEST}")
        for file in sorted(path for path in asked.links.rglob("*") if path.is_file()):
            inside = file.relative_to(asked.links).as_posix()
            if inside != _MANIFEST:
                again(_put, self._files, file, f"{target}/{inside}")
        for name in _BESIDE:
            if (beside := self._folder.root / name).is_file():
                again(_put, self._files, beside, f"{self._root}/{name}")
        again(_put, self._files, asked.links / _MANIFEST, f"{target}/{_MANIFEST}")
        for old in again(_copies, self._files, self._root):
            if old not in asked.kept:
                again(_remove, self._files, f"{self._root}/checkpoints/{old}/{_MANIFEST}")
                again(self._files.rm, f"{self._root}/checkpoints/{old}", recursive=True)


@contextmanager
def open_mirror(folder: RunFolder, address: str | None) -> Iterator[Mirror | None]:
    """The run's mirror, closed at the end of the block; None without an address. Whoever interrupts does not wait."""
    mirror, waits_s = None if address is None else Mirror(folder, address), _LAST_COPY_S
    try:
        yield mirror
    except KeyboardInterrupt:
        waits_s = 0.0
        raise
    finally:
        if mirror is not None:
            mirror.close(deadline_s=waits_s)


def place(address: str, run: Path) -> tuple[Any, str]:
    """File system of an address and the run's own folder there, named as the run folder and the one that it is in.

    The stages of two pipelines have the same names.

    Raises:
        RefusedInput: nothing here can speak to it.
    """
    try:
        files, root = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError, OSError) as error:
        raise RefusedInput(f"run.mirror = {address!r} cannot be used: {_told(error)}") from error
    return files, "/".join([root.rstrip("/"), *run.resolve().parts[-2:]])


def fetch_newest(folder: RunFolder, address: str) -> int | None:
    """Bring the newest whole copy back into a run folder that has no checkpoint; its step, None where there is none.

    Raises:
        RefusedInput: it cannot be read.
    """
    files, root = place(address, folder.root)
    try:
        if not (found := _copies(files, root)):
            return None
        target, source = folder.checkpoints / found[-1], f"{root}/checkpoints/{found[-1]}"
        shutil.rmtree(target, ignore_errors=True)
        for remote in sorted(files.find(source), key=lambda path: path == f"{source}/{_MANIFEST}"):
            _get(files, remote, target / remote.removeprefix(f"{source}/"))
        for name in _BESIDE:
            if not (folder.root / name).exists() and files.exists(f"{root}/{name}"):
                _get(files, f"{root}/{name}", folder.root / name)
    except Exception as error:  # every store of objects has errors of its own
        raise RefusedInput(f"run.mirror = {address!r} cannot be read: {_told(error)}") from error
    return int(found[-1].removeprefix("step_"))


def _copies(files: Any, root: str) -> list[str]:
    """Names of the whole copies, oldest first."""
    files.invalidate_cache()
    found = files.glob(f"{root}/checkpoints/step_*/{_MANIFEST}")
    return sorted(path.split("/")[-2] for path in found)


def _put(files: Any, local: Path, remote: str) -> None:
    files.makedirs(remote.rpartition("/")[0], exist_ok=True)
    files.put_file(str(local), remote)


def _get(files: Any, remote: str, local: Path) -> None:
    local.parent.mkdir(parents=True, exist_ok=True)
    files.get_file(remote, str(local))


def _remove(files: Any, remote: str) -> None:
    if files.exists(remote):
        files.rm_file(remote)


def _told(error: Exception) -> str:
    return one_line(str(error) or type(error).__name__, most=_MOST_CHARS)
