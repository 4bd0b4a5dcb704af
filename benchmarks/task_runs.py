"""Runs of the command line for the comparisons of algorithms, and what they have measured."""

import json
import subprocess
import sys
from pathlib import Path


def train(*arguments: str) -> None:
    """One run, its output beside it."""
    folder = Path(arguments[arguments.index("--run.dir") + 1])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("w") as log:
        command = [sys.executable, "-m", "orchestrator.train", *arguments]
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        sys.exit(f"{' '.join(arguments)} ended with exit code {code}: {log.name}")


def accuracies(folder: Path) -> dict[int, float]:
    """Held-out accuracy by step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["eval/accuracy"] for row in rows if "eval/accuracy" in row}
