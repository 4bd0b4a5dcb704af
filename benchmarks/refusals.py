"""From the command line to the refusal, in seconds, for every kind of bad input; each in a fresh process.

PYTHONPATH=. python benchmarks/refusals.py
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine_lines

from orchestrator.tasks.digits_model import build_digits_model
from tests.contract.bad_inputs import SPOILED, valid_case


def main() -> None:
    """Print one table row for each kind."""
    print("\n".join(machine_lines()))  # noqa: T201
    print("| bad input | exit code | seconds | what is said |")  # noqa: T201
    print("| --- | --- | --- | --- |")  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        model = build_digits_model(Path(folder) / "model", seed=0)
        for number, (name, (spoil, _)) in enumerate(SPOILED.items()):
            place = Path(folder) / str(number)
            place.mkdir()
            case = valid_case(place, model)
            spoil(case)
            started = time.monotonic()
            command = [sys.executable, "-m", "orchestrator.train", *case.argv()]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.monotonic() - started
            said = result.stderr.strip().replace(folder, "").replace("|", "/")
            print(f"| {name} | {result.returncode} | {seconds:.1f} | {said} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
