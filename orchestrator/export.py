"""``python -m orchestrator.export RUN OUT``: what a run trained as a plain Hugging Face folder, adapters merged in."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from orchestrator.errors import RefusedInput
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
    """Run the command line; return the exit code: 0 done, 2 refused."""
    command = tyro.cli(Export, prog="python -m orchestrator.export", args=argv)
    try:
        export(Path(command.source), Path(command.out))
    except RefusedInput as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        return 2
    sys.stdout.write(model_line(Path(command.out)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
