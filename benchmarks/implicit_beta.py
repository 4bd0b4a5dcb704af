"""Is the beta that MM-RLHF's released code draws anything but plain DPO with noise? Three runs of ours, same batches.

python examples/mm_dpo_digits/make_data.py runs/mm_dpo_digits
PYTHONPATH=. python benchmarks/implicit_beta.py runs/mm_dpo_digits

The released beta of a step comes from the policy's own log-ratios of that step (beta_mode = batch_implicit, w = 0.1).
Beside it plain DPO, and a draw with five times the weight. No supervised term, so that beta is all that differs.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import machine_lines

_RUNS = {
    "plain DPO": ("fixed", "0.1"),
    "released, w = 0.1": ("batch_implicit", "0.1"),
    "released, w = 0.5": ("batch_implicit", "0.5"),
}


def main() -> None:
    """Print what every run did."""
    root = Path(sys.argv[1])
    print("\n".join(machine_lines()))  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: _run(root, Path(folder), *how) for name, how in _RUNS.items()}
    plain = rows["plain DPO"]
    print("| run | mean beta | its deviation | held-out pairs | margin | loss, mean gap to plain DPO |")  # noqa: T201
    print("| --- | --- | --- | --- | --- | --- |")  # noqa: T201
    for name, steps in rows.items():
        betas = [step.get("beta/mean", 0.1) for step in steps[1:]]
        gap = statistics.fmean(
            abs(a["policy/loss"] - b["policy/loss"]) for a, b in zip(steps[1:], plain[1:], strict=True)
        )
        last = steps[-1]
        print(  # noqa: T201
            f"| {name} | {statistics.fmean(betas):.4f} | {statistics.pstdev(betas):.4f} "
            f"| {last['eval/pair_accuracy']:.3f} | {last['eval/margin']:.3f} | {gap:.4f} |"
        )


def _run(root: Path, folder: Path, mode: str, weight: str) -> list[dict[str, float]]:
    run = folder / f"{mode}_{weight}"
    command = [
        *(sys.executable, "-m", "orchestrator.train", "--config", "examples/mm_dpo_digits/config.toml"),
        *("--model.path", str(root / "start"), "--data.path", str(root / "critiques"), "--run.dir", str(run)),
        *("--mm_dpo.beta_mode", mode, "--mm_dpo.margin_weight", weight, "--mm_dpo.sft_weight", "0"),
        *("--reference.path", str(folder / "reference")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{mode}: {done.stderr[-3000:]}")
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    main()
