"""Accidents at random moments: every kind once in each run, until each has happened ``RUNS`` times.

PYTHONPATH=. python benchmarks/chaos.py RUNS [SEED]

Prints, for each run, when what happened, and whether the run ended with every step once, every prompt once, and the
same tokens, rewards, losses and weights as a run that nothing happened to.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine_lines

from orchestrator.tasks.digits import DigitsPaths, build_digits_data
from orchestrator.tasks.digits_model import build_digits_model
from tests.integration.chaos import ACCIDENTS, run_and_lose_a_node, run_with_accidents
from tests.integration.runs import (
    WARM_UP_STEPS,
    metric_rows,
    online_arguments,
    rollout_trace,
    training_trace,
    warm_up_arguments,
)

_STEPS = 12
_LATEST_S = 1.5


def main() -> None:
    """Make the undisturbed run, then disturb ``RUNS`` others."""
    num_runs, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    rng = random.Random(seed)
    print("\n".join(machine_lines()))  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        digits, model = _warm_up(root)
        calm, seconds = _run(root, "calm", digits, model, [])
        print(f"undisturbed: {seconds:.0f} s\n| run | accidents (kind @ step + seconds) | seconds | outcome |")  # noqa: T201
        print("| --- | --- | --- | --- |")  # noqa: T201
        for number in range(num_runs):
            kinds = rng.sample(list(ACCIDENTS), len(ACCIDENTS))
            steps = sorted(rng.randrange(1, _STEPS) for _ in kinds)
            accidents = [(k, s, rng.uniform(0.0, _LATEST_S)) for k, s in zip(kinds, steps, strict=True)]
            run, seconds = _run(root, f"run{number}", digits, model, accidents)
            told = ", ".join(f"{kind} @ {step} + {delay:.1f}" for kind, step, delay in accidents)
            print(f"| {number} | {told} | {seconds:.0f} | {_outcome(run, calm)} |", flush=True)  # noqa: T201
            step, delay = rng.randrange(1, _STEPS), rng.uniform(0.0, _LATEST_S)
            run, started = root / f"node{number}", time.monotonic()
            result = run_and_lose_a_node(_arguments(run, digits, model), run, rows_before=step, delay_s=delay)
            if result.returncode != 0:
                print(result.stderr[-1500:])  # noqa: T201
            seconds, told = time.monotonic() - started, f"node lost @ {step} + {delay:.1f}"
            print(f"| {number} | {told} | {seconds:.0f} | {_outcome(run, calm)} |", flush=True)  # noqa: T201


def _warm_up(root: Path) -> tuple[DigitsPaths, Path]:
    digits = build_digits_data(root / "data", seed=0)
    model = build_digits_model(root / "model", seed=0)
    arguments = warm_up_arguments(model, digits, root / "warm")
    subprocess.run([sys.executable, "-m", "orchestrator.train", *arguments], check=True, stdout=subprocess.DEVNULL)
    return digits, root / "warm" / "checkpoints" / f"step_{WARM_UP_STEPS:06d}" / "policy"


def _run(
    root: Path, name: str, digits: DigitsPaths, model: Path, accidents: list[tuple[str, int, float]]
) -> tuple[Path, float]:
    started = time.monotonic()
    result = run_with_accidents(_arguments(root / name, digits, model), root / name, accidents)
    if result.returncode != 0:
        print(result.stderr[-1500:])  # noqa: T201
    return root / name, time.monotonic() - started


def _arguments(run_dir: Path, digits: DigitsPaths, model: Path) -> list[str]:
    return [
        *online_arguments(model, digits, run_dir),
        "--run.steps",
        str(_STEPS),
        "--run.silent_after_s",
        "12",
        "--run.start_timeout_s",
        "60",
    ]


def _outcome(run: Path, calm: Path) -> str:
    if [row["step"] for row in metric_rows(run)] != list(range(_STEPS + 1)):
        return "steps missing"
    if rollout_trace(run) != rollout_trace(calm):
        return "other rollouts"
    return "as undisturbed" if training_trace(run) == training_trace(calm) else "other metrics"


if __name__ == "__main__":
    main()
