"""How every command line ends: in an exit code and one line, whatever was typed and however it was stopped.

0 done    2 refused    3 stopped by a guard    130 interrupted
"""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import tyro

from algorithms.settings import path_fault
from orchestrator.cluster.waits import WaitTimeout, WorkerLost
from orchestrator.errors import GuardStop, RefusedInput, told
from workers.types import UnusablePrompt

REFUSED, STOPPED, INTERRUPTED = 2, 3, 130
_MOST_CHARS = 290
_FRAME = re.compile(r"[\u2500-\u257f]+|\x1b\[[0-9;]*m")
_MOST_LOOKED_AT = 20_000
_BEHIND = ("Got errors:", "Argument helptext:", "For full helptext", "Perhaps you meant", "To see full helptext")
"""What the parser of flags says below its reason."""


def ended(run: Callable[[], int]) -> int:
    """Call the body of a command line; return its exit code, or that of what stopped it, told in one line."""
    try:
        return run()
    except (RefusedInput, UnusablePrompt) as refusal:
        return _told("refused", refusal, REFUSED)
    except (GuardStop, WaitTimeout, WorkerLost) as stop:
        return _told("stopped", stop, STOPPED)
    except KeyboardInterrupt:
        sys.stderr.write("stopped: interrupted; what was finished by then is kept, and the same command goes on\n")
        return INTERRUPTED


def _told(how: str, error: Exception, code: int) -> int:
    text = str(error)
    sys.stderr.write(f"{how}: {told(text, most=_MOST_CHARS) if code == REFUSED else text}\n")
    return code


def parsed(kind: Any, argv: Sequence[str] | None, *, prog: str, description: str | None = None) -> Any:
    """The flags of a command as its dataclass.

    Raises:
        RefusedInput: they are none of its own, or their values do not fit.
        SystemExit: code 0, after ``--help`` was printed.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    refuse_unusable_words(words)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog=prog, args=words, description=description)
    except SystemExit as ending:
        if not ending.code:
            raise
        raise RefusedInput(_reason(said.getvalue(), prog)) from ending


def refuse_unusable_words(words: Sequence[str]) -> None:
    """Refuse words that no system hands to a program.

    Raises:
        RefusedInput: one holds a NUL character.
    """
    for word in words:
        if "\0" in word:
            raise RefusedInput(f"the word {word!r} holds a NUL character")


def refuse_paths(command: Any, *names: str) -> None:
    """Refuse flags that name no path which a file could have.

    Args:
        names: Fields of the command's dataclass, each None, a text or several.
    Raises:
        RefusedInput: naming the flag.
    """
    known = {field.name for field in fields(command)}
    for name in names:
        assert name in known, name
        value = getattr(command, name)
        for path in (value,) if isinstance(value, str) else value or ():
            if fault := path_fault(str(path)):
                raise RefusedInput(f"{name} = {str(path)!r} {fault}")


def _reason(said: str, prog: str) -> str:
    """The parser's words without its frame and its advice."""
    words = " ".join(_FRAME.sub(" ", said[:_MOST_LOOKED_AT]).split())
    for mark in _BEHIND:
        words = words.partition(mark)[0]
    words = words.strip().removeprefix("Parsing error").removeprefix("Value error").removeprefix("Required options")
    return f"{words.strip() or 'the flags cannot be read'}; see {prog} --help"
