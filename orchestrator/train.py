"""``python -m orchestrator.train --algo NAME``: one run, from the command line to the closing summary."""

import sys
from collections.abc import Sequence

from orchestrator.cluster.waits import WaitTimeout, WorkerLost
from orchestrator.config.load import load_config
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.pipeline.run import dry_run, train
from workers.types import UnusablePrompt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 refused, 3 stopped by a guard."""
    try:
        config, options = load_config(sys.argv[1:] if argv is None else argv)
        (dry_run if options.dry_run else train)(config)
    except (RefusedInput, UnusablePrompt) as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        return 2
    except (GuardStop, WaitTimeout, WorkerLost) as stop:
        sys.stderr.write(f"stopped: {stop}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
