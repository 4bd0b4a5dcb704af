"""One command line, run in this process as a person would run it, with a deadline and a bound on memory."""

import contextlib
import io
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

DEADLINE_S = 5.0
MOST_CHARS = 300
_GIB = 1 << 30
_MOST_GIB = 6


class TooLate(BaseException):
    """The deadline has passed; nothing that catches errors catches it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of a command line."""

    code: int | None
    """None of a traceback."""
    said: str
    """On standard error."""
    seconds: float
    raised: str = ""
    shown: str = ""
    """On standard output."""

    @property
    def fault(self) -> str | None:
        """What a person should not have met; None where all is well."""
        if self.raised:
            return self.raised
        if self.seconds > DEADLINE_S:
            return f"took {self.seconds:.1f} s"
        if not all(c.isprintable() or c == "\n" for c in self.said + self.shown):
            return f"writes what a terminal obeys: {self.said[:200]!r}"
        if self.code == 0:
            return None
        lines = self.said.splitlines()
        if self.code == 2 and not lines and self.shown.startswith("row "):
            return None  # bad rows, which a check lists
        if self.code != 2 or len(lines) != 1:
            return f"exit code {self.code} with {len(lines)} lines: {self.said[:400]!r}"
        return f"a line of {len(lines[0])} characters" if len(lines[0]) > MOST_CHARS else None


def observed(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> Ending:
    """Run a command line's ``main``."""
    out, err, started = io.StringIO(), io.StringIO(), time.monotonic()
    code: int | None = None
    raised = ""
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _bounded():
            try:
                code = main(argv) or 0
            except SystemExit as ending:
                code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except TooLate:
        raised = f"not done after {DEADLINE_S:g} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raised = f"{type(error).__name__}: {str(error)[:200]}"
    return Ending(code, err.getvalue(), time.monotonic() - started, raised, out.getvalue())


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TooLate

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + _MOST_GIB * _GIB, hard))
    handler = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_S, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
