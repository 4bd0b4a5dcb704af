"""``python -m orchestrator.train --algo NAME``: a run, or several, from the command line to the closing summary."""

import sys
from collections.abc import Sequence

from orchestrator.cluster.waits import WaitTimeout, WorkerLost
from orchestrator.config.load import load_runs
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.pipeline.several import dry_run_all, train_all
from workers.types import UnusablePrompt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 refused, 3 stopped by a guard."""
    try:
        runs, options = load_runs(sys.argv[1:] if argv is None else argv)
        (dry_run_all if options.dry_run else train_all)(runs)
    except (RefusedInput, UnusablePrompt) as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        return 2
    except (GuardStop, WaitTimeout, WorkerLost) as stop:
        sys.stderr.write(f"stopped: {stop}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
