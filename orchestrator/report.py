"""``python -m orchestrator.report RUN_DIR``: write ``report.html`` into a run folder, of a run finished or not.

A folder with several runs and scores of benchmarks, as ``[[stage]]`` tables leave it, is told as one story.
``python -m orchestrator.report RUN_DIR RUN_DIR ...`` writes ``comparison.html`` into the first one: the settings that
differ, and the curves over each other.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from algorithms.settings import path_fault
from orchestrator.command_line import ended
from orchestrator.errors import RefusedInput
from orchestrator.reporting.page import Page, comparison_page, story_page
from orchestrator.reporting.run_record import read_run
from orchestrator.reporting.story import chapters_of
from orchestrator.run.folder import RunFolder, write_atomic

_USAGE = "python -m orchestrator.report RUN_DIR [RUN_DIR ...]"
_MOST_RUNS = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code; see ``command_line``."""
    return ended(lambda: _run(sys.argv[1:] if argv is None else list(argv)))


def _run(arguments: list[str]) -> int:
    if arguments in (["-h"], ["--help"]):
        sys.stdout.write(f"usage: {_USAGE}\n\n{__doc__}")
        return 0
    if not 1 <= len(arguments) <= _MOST_RUNS:
        raise RefusedInput(f"{len(arguments)} arguments given, wanted 1 to {_MOST_RUNS}: {_USAGE}")
    for argument in arguments:
        if fault := path_fault(argument):
            raise RefusedInput(f"the run folder {argument!r} {fault}")
    roots = [Path(argument) for argument in arguments]
    sys.stdout.write(f"{write_report(*roots) if len(roots) == 1 else write_comparison(roots)}\n")
    return 0


def write_report(root: Path) -> Path:
    """Write the report of what is in ``root``; return its path. What could not be shown is said on standard error.

    Raises:
        RefusedInput: nothing of a run is in ``root``, or the report cannot be written into it.
    """
    return _write(RunFolder(root).report, story_page(chapters_of(root)))


def write_comparison(roots: Sequence[Path]) -> Path:
    """Write a page of several runs into the first one's folder; return its path.

    Raises:
        RefusedInput: one of them is no run folder, or the page cannot be written.
    """
    return _write(roots[0] / "comparison.html", comparison_page([read_run(root) for root in roots]))


def _write(path: Path, page: Page) -> Path:
    sys.stderr.writelines(f"left out: {sentence.encode(errors='replace').decode()}\n" for sentence in page.left_out)
    try:
        # Half a character, which JSON may hold, is in no UTF-8 file.
        write_atomic(path, page.text.encode(errors="replace"))
    except OSError as error:
        raise RefusedInput(f"{str(path)!r} cannot be written: {error.strerror}") from error
    return path


if __name__ == "__main__":
    sys.exit(main())
