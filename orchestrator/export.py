"""``python -m orchestrator.export RUN OUT``: what a run trained as a plain Hugging Face folder, adapters merged in."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from orchestrator.command_line import ended, parsed, refuse_paths
from orchestrator.pipeline.summary import model_line
from orchestrator.run.model_folder import export


@dataclass(frozen=True)
class Export:
    """Write what a run trained as a plain Hugging Face folder; an adapter is merged into its base."""

    source: tyro.conf.Positional[str]
    """Run folder, of which the newest complete checkpoint counts, or folder of one checkpoint."""
    out: tyro.conf.Positional[str]
    """Folder to be made."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code; see ``command_line``."""
    return ended(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    command = parsed(Export, argv, prog="python -m orchestrator.export")
    refuse_paths(command, "source", "out")
    export(Path(command.source), Path(command.out))
    sys.stdout.write(model_line(Path(command.out)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
