"""Processes that run reward functions, each call with a deadline; one that hangs or dies is replaced.

free ──call──► busy ──answer──► free
                 └── deadline, end, cancelled ──► killed with all its children ──next call──► started again
"""

import asyncio
import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from remote_rm.functions.spec import FunctionSpec

_MODULE = "remote_rm.functions.child"
_MOST_LINE_BYTES = 64 << 20
_START_S = 120.0
_LOOK_S = 0.005
_REAP_S = 1.0
_GIB = 1 << 30
ADOPTS_ORPHANS = False
"""Whether this process is the parent of whatever outlives its parent below it: then that can be ended too."""


class FunctionFailed(Exception):
    """A function has no value for this call; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a call may cost."""

    workers: int = 4
    """Processes."""
    deadline_s: float = 10.0
    """Of one call."""
    memory_gib: float = 4.0
    """That a process may hold, its own code included."""


@dataclass(frozen=True, slots=True)
class Takes:
    """What a function wants to be given."""

    is_of_group: bool
    """All samples of a prompt at once."""
    images: bool


class FunctionPool:
    """For one event loop."""

    def __init__(self, specs: Sequence[FunctionSpec], bounds: Bounds) -> None:
        self.specs, self.bounds = tuple(specs), bounds
        self._start = json.dumps(
            {
                "functions": [asdict(spec) for spec in specs],
                "memory_bytes": int(bounds.memory_gib * _GIB),
            }
        ).encode()
        self._processes = [_Process(self._start) for _ in range(bounds.workers)]
        self._free: asyncio.Queue[_Process] = asyncio.Queue()
        for process in self._processes:
            self._free.put_nowait(process)
        self.takes: tuple[Takes, ...] = ()

    async def start(self) -> None:
        """Load the functions once, so that one that cannot be is known before anything is asked.

        Raises:
            ValueError: with what the file that holds it raised.
        """
        process = self._processes[0]
        try:
            self.takes = await process.start()
        except FunctionFailed as error:
            raise ValueError(f"--functions cannot be loaded: {error}") from error

    async def call(self, function: int, given: Mapping[str, Any], *, count: int) -> list[float | None]:
        """Values of one sample, or of the ``count`` samples of a prompt; None where the function has nothing to say.

        Raises:
            FunctionFailed: there are none.
        """
        process = await self._free.get()  # every call before it has a deadline
        try:
            return await process.ask(function, given, count=count, deadline_s=self.bounds.deadline_s)
        finally:
            self._free.put_nowait(process)

    async def close(self) -> None:
        """End all processes, and what they have started."""
        for process in self._processes:
            await process.kill()


class _Process:
    def __init__(self, start: bytes) -> None:
        self._start, self._process, self._asked = start, None, 0

    async def start(self) -> tuple[Takes, ...]:
        """Begin anew.

        Raises:
            FunctionFailed: the functions cannot be loaded.
        """
        # A session of its own: its end takes along whatever a function has started.
        self._process: asyncio.subprocess.Process | None = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            start_new_session=True, limit=_MOST_LINE_BYTES,
        )  # fmt: skip
        try:
            said = await self._exchange(self._start, _START_S)
            if "refused" in said:
                raise FunctionFailed(str(said["refused"]))
            return tuple(Takes(bool(one["is_of_group"]), bool(one["images"])) for one in said["loaded"])
        except BaseException:
            await self.kill()
            raise

    async def ask(
        self, function: int, given: Mapping[str, Any], *, count: int, deadline_s: float
    ) -> list[float | None]:
        if self._process is None or self._process.returncode is not None:
            await self.kill()
            await self.start()
        self._asked += 1
        request = json.dumps({"id": self._asked, "function": function, **given}).encode()
        answered = False
        try:
            said = await self._exchange(request, deadline_s)
            answered = said.get("id") == self._asked
        finally:
            if not answered:  # it may still be busy with this one
                await self.kill()
        if not answered:
            raise FunctionFailed("its process answered what was not asked")
        if "error" in said:
            raise FunctionFailed(str(said["error"]))
        return _checked(said.get("values"), count)

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await _gone(process)

    async def _exchange(self, line: bytes, deadline_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(deadline_s):
                process.stdin.write(line + b"\n")
                await process.stdin.drain()
                answer = await process.stdout.readline()
        except TimeoutError:
            raise FunctionFailed(f"it gave no answer within {deadline_s:g} s") from None
        except (ValueError, ConnectionError, asyncio.IncompleteReadError):
            answer = b""
        if not answer.endswith(b"\n"):
            raise FunctionFailed(f"its process {await _end_of(process)}")
        try:
            said = json.loads(answer)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise FunctionFailed("its process answered what is no answer")
        return said


async def _end_of(process: asyncio.subprocess.Process) -> str:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it has ended, what it had started may not have
    code = await _gone(process)
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


async def _gone(process: asyncio.subprocess.Process) -> int:
    """The exit code of a process that was killed; who has left its session and holds its pipes is not waited for."""
    while process.returncode is None:
        await asyncio.sleep(_LOOK_S)
    process._transport.close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    _end_orphans()
    return process.returncode


def _end_orphans() -> None:
    """End what a function has started in a session of its own, where this process has become its parent."""
    if not ADOPTS_ORPHANS:
        return
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if _MODULE not in child.cmdline():
                for one in (*child.children(recursive=True), child):
                    one.kill()
                child.wait(timeout=_REAP_S)


def _checked(values: Any, count: int) -> list[float | None]:
    """The process runs somebody's code: what comes out of it is checked once more."""
    fine = isinstance(values, list) and len(values) == count
    if not fine or any(
        value is not None and (type(value) not in (int, float) or not math.isfinite(value)) for value in values
    ):
        raise FunctionFailed("its process answered what is no number for each sample")
    return values
