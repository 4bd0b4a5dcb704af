"""Programs that are run beside this one: their output in a file, their environment told, their end waited for."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import GuardStop, RefusedInput, one_line

_END_S = 30.0
_TAIL_BYTES = 1 << 16
_MOST_CHARS = 500
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(r"^(\w+\.)*\w*(Error|Exception|Exit|Interrupt)\b|\bERROR\b|\berror:")


def started(command: Sequence[str], environment: Mapping[str, str | None], log: Path) -> "subprocess.Popen[bytes]":
    """Start it in a session of its own, so that it can be ended with all that it starts.

    Args:
        environment: Added to this process's own; None takes a variable away.
        log: File for all that it says.
    Raises:
        RefusedInput: there is no such program.
    """
    variables = {**os.environ, **environment}
    with log.open("xb") as said:
        try:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in variables.items() if value is not None},
                start_new_session=True,
            )
        except OSError as error:
            raise RefusedInput(f"{command[0]!r} cannot be run: {error.strerror}") from error


def ended(process: "subprocess.Popen[bytes]") -> None:
    """End it and what it has started: kindly, then not."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    # What it started may be there although it is not.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path) -> str:
    """The last line of a log that tells of an error, or the last of all."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        said = _COLOUR.sub("", file.read().decode(errors="replace"))
    lines = [line.strip() for line in said.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.search(line)]
    return one_line((errors or lines or ["it said nothing"])[-1], most=_MOST_CHARS)


def failure(name: str, process: "subprocess.Popen[bytes]", log: Path) -> GuardStop:
    """What to raise of a process that has ended when it should not."""
    return GuardStop(f"{name} ended with exit code {process.returncode}: {last_line(log)} (see {log})")
