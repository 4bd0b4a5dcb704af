"""PPO with a critic beside two algorithms without one, on the task and the settings of policy_gradients.py.

    python benchmarks/ppo.py OUT [--seeds 0 1 2] [--steps 16] [--warmup 8]

The critic begins at the cold start, with a head of zeros. In "ppo, warmed up" it learns alone for the first steps, and
the policy's steps come behind them; in "ppo" both have two updates a step from the first on. Prints, and writes to
OUT/ppo.md and OUT/ppo.svg, the held-out accuracy by step, and loss and explained variance of the critics. Runs that are
finished are not run again.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean

from policy_gradients import THRESHOLD, run

_WITHOUT = ("grpo", "reinforce_pp")
_LR = ("--critic.lr", "2e-3")
_OFTEN = ("--critic.epochs", "4", "--critic.clip", "none")
_PLAIN, _WARM = "ppo", "ppo, warmed up"
_FIGURES = ("critic/loss", "critic/explained_variance")
_COLOURS = {_WARM: "#1f77b4", _PLAIN: "#17becf", "grpo": "#ff7f0e", "reinforce_pp": "#2ca02c"}

Curves = dict[str, list[dict[int, float]]]
"""By name, for each seed a value by step."""


def figures(folder: Path, name: str) -> dict[int, float]:
    """One figure of a run by step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row[name] for row in rows if name in row}


def accuracy_table(curves: Curves) -> str:
    """Markdown: by algorithm the mean at each step, the worst last value, and the steps to the threshold by seed."""
    steps = sorted({step for runs in curves.values() for step in runs[0]})
    head = " | ".join(f"step {step}" for step in steps)
    lines = [
        f"| | {head} | lowest at the end | steps to {THRESHOLD}, by seed |",
        "|---" * (len(steps) + 3) + "|",
    ]
    for algo, runs in curves.items():
        means = " | ".join(f"{mean(c[step] for c in runs):.3f}" if step in runs[0] else "" for step in steps)
        lowest = min(curve[max(curve)] for curve in runs)
        reached = (next((str(step) for step in sorted(c) if c[step] >= THRESHOLD), "not reached") for c in runs)
        lines.append(f"| {algo} | {means} | {lowest:.3f} | {', '.join(reached)} |")
    return "\n".join(lines) + "\n"


def critic_table(critics: dict[str, Curves]) -> str:
    """Markdown: mean and range over the seeds of the critics' figures at every other step."""
    steps = sorted({step for curves in critics.values() for runs in curves.values() for step in runs[0]})
    named = [(arm, figure) for figure in _FIGURES for arm in critics]
    lines = ["| step | " + " | ".join(f"`{f}`, {arm}" for arm, f in named) + " |", "|---" * (len(named) + 1) + "|"]
    for step in [steps[0], *steps[1::2]]:
        cells = []
        for arm, figure in named:
            found = [curve[step] for curve in critics[arm][figure] if step in curve]
            cells.append(f"{mean(found):.3f} ({min(found):.3f} to {max(found):.3f})" if found else "")
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(accuracies: Curves, critics: dict[str, Curves]) -> str:
    """Means over the seeds by step, as SVG: accuracies as lines, explained variance dashed."""
    curves = [(name, _COLOURS[name], "", runs) for name, runs in accuracies.items()]
    for arm, of_critic in critics.items():
        curves.append((f"{arm}: explained variance", _COLOURS[arm], ' stroke-dasharray="4"', of_critic[_FIGURES[1]]))
    width, height, left, top = 560, 300, 50, 30
    last = max(step for *_, runs in curves for step in runs[0])

    def at(step: int, value: float) -> str:
        return f"{left + width * step / last:.1f},{top + height * (1 - max(-0.1, value)) / 1.1:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 220}" height="{top + height + 40}" '
        'font-family="sans-serif" font-size="12">',
        f'<text x="{left}" y="16">held-out accuracy, and what the critics explain; mean of the seeds, by step</text>',
    ]
    for value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x, y = at(0, value).split(",")
        parts.append(f'<path d="M{x} {y} h{width}" stroke="#ccc"/><text x="12" y="{y}">{value:.1f}</text>')
    for step in range(0, last + 1, 4):
        parts.append(f'<text x="{at(step, 0).split(",")[0]}" y="{top + height + 20}">{step}</text>')
    for number, (name, colour, dash, runs) in enumerate(curves):
        points = " ".join(at(step, mean(curve[step] for curve in runs)) for step in sorted(runs[0]))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>')
        parts.append(f'<text x="{left + width + 10}" y="{top + 16 * (number + 1)}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--warmup", type=int, default=8)
    options = parser.parse_args()
    out, accuracies, critics = options.out, Curves(), dict[str, Curves]()
    arms = {
        _WARM: ("ppo", options.warmup, (*_LR, *_OFTEN, "--critic.warmup_steps", str(options.warmup))),
        _PLAIN: ("ppo_plain", 0, _LR),
    }
    for arm, (folder, warmup, own) in arms.items():
        steps = warmup + options.steps
        accuracies[arm] = [run(out, "ppo", seed, steps, *own, name=folder) for seed in options.seeds]
        critics[arm] = {f: [figures(out / f"{folder}_{seed}", f) for seed in options.seeds] for f in _FIGURES}
    for algo in _WITHOUT:
        accuracies[algo] = [run(out, algo, seed, options.steps) for seed in options.seeds]
    tables = f"{accuracy_table(accuracies)}\n{critic_table(critics)}"
    (out / "ppo.md").write_text(tables)
    (out / "ppo.svg").write_text(picture(accuracies, critics))
    sys.stdout.write(tables)


if __name__ == "__main__":
    main()
