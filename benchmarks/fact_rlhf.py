"""Fact-RLHF on digits, with a reward model that is told the facts and with one that is not.

    PYTHONPATH=. python benchmarks/fact_rlhf.py OUT [--seeds 0 1 2]

For each seed the whole of examples/fact_rlhf_digits, from random weights, then its control. Prints, and writes to
OUT/fact_rlhf.md and OUT/fact_rlhf.svg, the held-out accuracy of the reward models, and by step what the policy earns
from them and how often it is right. Runs that are finished are not run again.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

from orchestrator.run.rollout_store import read_rollouts

_EXAMPLE = Path("examples/fact_rlhf_digits")
_ARMS = {"told facts": "#1f77b4", "not told": "#d62728"}
_TRUTH, _REWARD = "eval/accuracy", "reward/scalar"
_ACCURACY, _SHUFFLED = "eval/pair_accuracy", "eval/pair_accuracy_shuffled_facts"
Rows = list[dict[str, Any]]


def run(out: Path, seed: int, config: str, place: str) -> tuple[Path, float]:
    """All stages of a file of the example; where they are, and how long it took, seconds: 0 where they were there."""
    folder = out / f"{place}_{seed}"
    file = out / f"{place}_{seed}.toml"
    text = (_EXAMPLE / config).read_text()
    for there, here in (
        ('"runs/fact_rlhf_digits_blind"', f'"{folder}"'),
        ("runs/fact_rlhf_digits_data", str(out / f"data_{seed}")),
        ('"runs/fact_rlhf_digits"', f'"{folder}"'),
        ("runs/fact_rlhf_digits/", f"{out / f'told_{seed}'}/"),
    ):
        text = text.replace(there, here)
    file.write_text(text)
    if (folder / "policy" / "checkpoints" / "step_000016" / "manifest.json").is_file():
        return folder, 0.0
    begun = time.monotonic()
    command = [sys.executable, "-m", "orchestrator.train", "--config", str(file), "--run.seed", str(seed)]
    with file.with_suffix(".log").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        sys.exit(f"{file} ended with exit code {code}: {log.name}")
    return folder, time.monotonic() - begun


def rows(folder: Path) -> Rows:
    """What a stage has reported."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curve(found: list[Rows], name: str) -> dict[int, list[float]]:
    """A figure by step, a value for each seed."""
    steps = [row["step"] for row in found[0] if name in row]
    return {step: [next(r[name] for r in of_seed if r["step"] == step) for of_seed in found] for step in steps}


def tables(judges: dict[str, list[Rows]], policies: dict[str, list[Rows]]) -> str:
    """Markdown: the reward models, then the policies."""
    lines = ["| reward model | held-out pairs it is right about, by seed | told others' facts |", "|---|---|---|"]
    for arm, found in judges.items():
        last = [of_seed[-1] for of_seed in found]
        shuffled = ", ".join(f"{row[_SHUFFLED]:.3f}" for row in last if _SHUFFLED in row)
        lines.append(f"| {arm} | {', '.join(f'{row[_ACCURACY]:.3f}' for row in last)} | {shuffled} |")
    lines += ["", "| policy's reward model | step | right, by seed | reward, by seed |", "|---|---|---|---|"]
    for arm, found in policies.items():
        rewards = curve(found, _REWARD)
        for step, values in curve(found, _TRUTH).items():
            earned = rewards.get(step, rewards[min(rewards)])
            told = ", ".join(f"{value:+.2f}" for value in earned)
            lines.append(f"| {arm} | {step} | {', '.join(f'{value:.3f}' for value in values)} | {told} |")
    return "\n".join(lines) + "\n"


def tones(folders: dict[str, list[Path]]) -> str:
    """Markdown: how many samples of the first and of the last step sound sure."""
    lines = ["| policy's reward model | samples that sound sure, first step to last, by seed |", "|---|---|"]
    for arm, of_seeds in folders.items():
        found = []
        for folder in of_seeds:
            files = sorted((folder / "rollouts").glob("step_*.parquet"))
            said = [[r.completion_text.startswith("surely") for r in read_rollouts(f)] for f in (files[0], files[-1])]
            found.append(" to ".join(f"{mean(one):.2f}" for one in said))
        lines.append(f"| {arm} | {', '.join(found)} |")
    return "\n".join(lines) + "\n"


def picture(policies: dict[str, list[Rows]]) -> str:
    """Two panels, as SVG: what the reward models say, relative to the first step, and the truth."""
    width, height, top = 300, 220, 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * width + 240}" height="{top + height + 40}" '
        'font-family="sans-serif" font-size="12">'
    ]
    for panel, (name, title) in enumerate(((_REWARD, "reward, gain"), (_TRUTH, "held-out answers that are right"))):
        found = {arm: curve(of_arm, name) for arm, of_arm in policies.items()}
        means = {arm: {step: mean(values) for step, values in by_step.items()} for arm, by_step in found.items()}
        if name == _REWARD:
            means = {arm: {s: v - by_step[min(by_step)] for s, v in by_step.items()} for arm, by_step in means.items()}
        values = [v for by_step in means.values() for v in by_step.values()]
        low, high = (min(0.0, *values), max(values)) if name == _REWARD else (0.0, 1.0)
        left, last = 50 + panel * (width + 60), max(step for by_step in means.values() for step in by_step)
        parts.append(f'<text x="{left}" y="20">{title}; mean of the seeds, by step</text>')
        for share in (0.0, 0.5, 1.0):
            y = top + height * (1 - share)
            parts.append(f'<path d="M{left} {y:.1f} h{width}" stroke="#ccc"/>')
            parts.append(f'<text x="{left - 38}" y="{y:.1f}">{low + (high - low) * share:.2f}</text>')
        for number, (arm, by_step) in enumerate(means.items()):
            at = (
                f"{left + width * step / last:.1f},{top + height * (1 - (v - low) / ((high - low) or 1.0)):.1f}"
                for step, v in sorted(by_step.items())
            )
            colour = _ARMS[arm]
            parts.append(f'<polyline points="{" ".join(at)}" fill="none" stroke="{colour}" stroke-width="2"/>')
            if panel:
                y = top + 16 * (number + 1)
                parts.append(f'<text x="{left + width + 8}" y="{y}" fill="{colour}">{arm}</text>')
        parts += [
            f'<text x="{left + width * step / last:.1f}" y="{top + height + 20}">{step}</text>'
            for step in range(0, last + 1, 4)
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Run what has not been run, and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    judges: dict[str, list[Rows]] = {arm: [] for arm in _ARMS}
    policies: dict[str, list[Rows]] = {arm: [] for arm in _ARMS}
    folders: dict[str, list[Path]] = {arm: [] for arm in _ARMS}
    for seed in options.seeds:
        data = [sys.executable, str(_EXAMPLE / "make_data.py"), str(out / f"data_{seed}"), str(seed)]
        subprocess.run(data, check=True, stderr=subprocess.DEVNULL)
        for arm, config, place in (("told facts", "pipeline.toml", "told"), ("not told", "blind.toml", "blind")):
            folder, took = run(out, seed, config, place)
            sys.stdout.write(f"seed {seed}, {arm}: {took:.0f} s\n")
            judges[arm].append(rows(folder / "reward"))
            policies[arm].append(rows(folder / "policy"))
            folders[arm].append(folder / "policy")
    told = f"{tables(judges, policies)}\n{tones(folders)}"
    (out / "fact_rlhf.md").write_text(told)
    (out / "fact_rlhf.svg").write_text(picture(policies))
    sys.stdout.write(told)


if __name__ == "__main__":
    main()
