"""The demo over several seeds: does it learn, does it look, how long does it take.

python benchmarks/demo.py 0 1 2
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine_lines


def main() -> None:
    """Run each seed on an otherwise idle machine and print one table row for it."""
    print("\n".join(machine_lines()))  # noqa: T201
    print("| seed | seconds | cold start steps | before | after | after, images shuffled | mean mismatch |")  # noqa: T201
    print("| --- | --- | --- | --- | --- | --- | --- |")  # noqa: T201
    for seed in sys.argv[1:]:
        print(_row(seed), flush=True)  # noqa: T201


def _row(seed: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        subprocess.run(
            [
                *(sys.executable, "-m", "orchestrator.train", "--algo", "stable_reinforce"),
                *("--run.dir", folder, "--run.seed", seed),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seconds = time.monotonic() - started
        rows = _rows(Path(folder) / "metrics.jsonl")
        cold = _rows(Path(folder) / "cold_start" / "metrics.jsonl")[-1]["step"]
    before, after = rows[0], rows[-1]
    mismatch = statistics.mean(row["mismatch/logprob_abs_mean"] for row in rows[1:])
    return (
        f"| {seed} | {seconds:.0f} | {cold} | {before['eval/accuracy']:.3f} | {after['eval/accuracy']:.3f} "
        f"| {after['eval/accuracy_shuffled_images']:.3f} | {mismatch:.1e} |"
    )


def _rows(file: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    main()
