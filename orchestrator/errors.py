"""The two ways a run ends early on purpose, and their exit codes."""


class RefusedInput(Exception):
    """Bad input or configuration: one line naming field or row, value and bound. Exit code 2."""


class GuardStop(Exception):
    """A guard stopped the run: one line with the reason; a checkpoint is left. Exit code 3."""
