"""``python -m orchestrator.report RUN_DIR``: write ``report.html`` into a run folder, of a run finished or not."""

import sys
from collections.abc import Sequence
from pathlib import Path

from algorithms.settings import path_fault
from orchestrator.command_line import ended
from orchestrator.errors import RefusedInput
from orchestrator.reporting.page import render
from orchestrator.reporting.run_record import read_run
from orchestrator.run.folder import write_atomic


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code; see ``command_line``."""
    return ended(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(arguments: Sequence[str]) -> int:
    if list(arguments) in (["-h"], ["--help"]):
        sys.stdout.write("usage: python -m orchestrator.report RUN_DIR\n")
        return 0
    if len(arguments) != 1:
        raise RefusedInput(f"{len(arguments)} arguments given, wanted 1: python -m orchestrator.report RUN_DIR")
    if fault := path_fault(arguments[0]):
        raise RefusedInput(f"the run folder {arguments[0]!r} {fault}")
    sys.stdout.write(f"{write_report(Path(arguments[0]))}\n")
    return 0


def write_report(root: Path) -> Path:
    """Write the report of the run in ``root``; return its path.

    Raises:
        RefusedInput: ``root`` is no run folder, or the report cannot be written into it.
    """
    record = read_run(root)
    try:
        write_atomic(record.folder.report, render(record))
    except OSError as error:
        raise RefusedInput(f"{str(record.folder.report)!r} cannot be written: {error.strerror}") from error
    return record.folder.report


if __name__ == "__main__":
    sys.exit(main())
