"""Every policy-gradient algorithm on one task and one configuration: `--algo` alone differs.

    python benchmarks/policy_gradients.py OUT [--seeds 0 1 2] [--algos grpo ...] [--steps 16]

For each seed one cold start on the embedded task count (supervised, from random weights), then each algorithm from its
result. Prints, and writes to OUT/table.md and OUT/curves.svg, the held-out accuracy by step: greedy answers to 256
pictures that no training picture shares a digit's image with. Runs that are finished are not run again.
"""

import argparse
import sys
from pathlib import Path
from statistics import mean

from task_runs import accuracies, train

ALGORITHMS = (
    "grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "dapo", "gspo", "cispo", "sapo",
    "stable_reinforce", "gdpo",
)  # fmt: skip
THRESHOLD = 0.75
_LR, _EVERY = "6e-4", 4
_COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
    "#000000",
)  # fmt: skip


def run(out: Path, algo: str, seed: int, steps: int, *further: str, name: str | None = None) -> dict[int, float]:
    """The curve of one algorithm from one cold start.

    Args:
        further: Flags besides those that all have.
        name: Of its folder, with the seed; None is the algorithm's.
    """
    start, folder = out / f"start_{seed}", out / f"{name or algo}_{seed}"
    common = ("--task", "count", "--run.seed", str(seed))
    model = start / "checkpoints" / "step_000200" / "policy"
    if not (model.parent / "manifest.json").is_file():
        train("--algo", "sft", *common, "--run.dir", str(start))
    if not (folder / "checkpoints" / f"step_{steps:06d}" / "manifest.json").is_file():
        own = ("--run.steps", str(steps), "--run.eval_every", str(_EVERY), "--optimizer.lr", _LR)
        train("--algo", algo, *common, "--model.path", str(model), "--run.dir", str(folder), *own, *further)
    return accuracies(folder)


def table(curves: dict[str, list[dict[int, float]]]) -> str:
    """Markdown: by algorithm the mean at each step, the worst last value, and the steps to the threshold by seed."""
    steps = sorted(next(iter(curves.values()))[0])
    head = [f"step {step}" for step in steps]
    lines = [
        "| `--algo` | " + " | ".join(head) + f" | lowest at the end | steps to {THRESHOLD}, by seed |",
        "|---" * (len(steps) + 3) + "|",
    ]
    for algo, runs in curves.items():
        means = " | ".join(f"{mean(curve[step] for curve in runs):.3f}" for step in steps)
        lowest = min(curve[steps[-1]] for curve in runs)
        reached = ", ".join(
            next((str(step) for step in steps if curve[step] >= THRESHOLD), "not reached") for curve in runs
        )
        lines.append(f"| `{algo}` | {means} | {lowest:.3f} | {reached} |")
    return "\n".join(lines) + "\n"


def picture(curves: dict[str, list[dict[int, float]]]) -> str:
    """The means as lines, as SVG."""
    steps = sorted(next(iter(curves.values()))[0])
    width, height, left, top = 520, 300, 50, 20

    def at(step: int, value: float) -> str:
        return f"{left + width * step / steps[-1]:.1f},{top + height * (1 - value) / 0.6:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 190}" height="{top + height + 40}" '
        'font-family="sans-serif" font-size="12">',
        f'<text x="{left}" y="14">held-out accuracy, mean of the seeds, by step</text>',
    ]
    for value in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        x, y = at(0, value).split(",")
        dash = ' stroke-dasharray="4"' if value == THRESHOLD else ""
        parts.append(f'<path d="M{x} {y} h{width}" stroke="#ccc"{dash}/><text x="12" y="{y}">{value:.1f}</text>')
    parts += [f'<text x="{at(s, 0.4).split(",")[0]}" y="{top + height + 18}">{s}</text>' for s in steps]
    for number, (algo, runs) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(at(step, mean(curve[step] for curve in runs)) for step in steps)
        y = top + 16 * (number + 1)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{left + width + 10}" y="{y}" fill="{colour}">{algo}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--algos", nargs="+", default=list(ALGORITHMS))
    parser.add_argument("--steps", type=int, default=16)
    options = parser.parse_args()
    curves: dict[str, list[dict[int, float]]] = {algo: [] for algo in options.algos}
    for seed in options.seeds:
        for algo in options.algos:
            curves[algo].append(run(options.out, algo, seed, options.steps))
        (options.out / "table.md").write_text(table(curves))
        (options.out / "curves.svg").write_text(picture(curves))
    sys.stdout.write(table(curves))


if __name__ == "__main__":
    main()
