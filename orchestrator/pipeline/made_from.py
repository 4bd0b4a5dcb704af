"""What a stage's result was made from, in a file beside it: one that fits is not made again."""

import json
from pathlib import Path

from orchestrator.run.folder import write_atomic
from orchestrator.run.identity import Identity


def fits(file: Path, made_from: Identity) -> bool:
    """True where ``file`` says that something was made, and from just this."""
    return file.is_file() and json.loads(file.read_text()) == made_from


def keep(file: Path, made_from: Identity) -> None:
    """Say in ``file`` what something is made from."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(made_from, indent=1) + "\n")
