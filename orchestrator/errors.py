"""The two ways a run ends early on purpose, and their exit codes."""

_MOST_CHARS = 2000


class RefusedInput(Exception):
    """Bad input or configuration: one line naming field or row, value and bound. Exit code 2."""

    def __str__(self) -> str:
        return one_line(super().__str__(), most=_MOST_CHARS)


class GuardStop(Exception):
    """A guard stopped the run: one line with the reason; a checkpoint is left. Exit code 3."""

    def __str__(self) -> str:
        return one_line(super().__str__(), most=_MOST_CHARS)


def one_line(text: str, *, most: int) -> str:
    """A message without line breaks and no longer than ``most``, its middle left out: who and why are at its ends."""
    line = " ".join(text.splitlines())
    return line if len(line) <= most else f"{line[: most * 2 // 3]} ... {line[-(most // 3) :]}"
