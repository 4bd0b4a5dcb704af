"""``python -m orchestrator.train --algo NAME``: a run, or several, from the command line to the closing summary."""

import sys
from collections.abc import Sequence

from orchestrator.command_line import ended
from orchestrator.config.load import load_runs
from orchestrator.pipeline.several import dry_run_all, train_all


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code; see ``command_line``."""
    return ended(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    runs, options = load_runs(argv)
    (dry_run_all if options.dry_run else train_all)(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
