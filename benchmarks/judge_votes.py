"""Does a judge of pairs get better by voting: examples/judge_bench_digits, counted with 1, 5 and 15 votes.

    PYTHONPATH=. python benchmarks/judge_votes.py OUT [--seeds 0]

For each seed the whole of the example, from random weights, unless it is there. The same fifteen samples of a question
are counted by the greedy verdict, the first vote, the first five and all, strictly; in brackets the middle 95 % of the
bootstrap over pairs. Prints the tables and writes them to OUT/judge_votes.md.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from machine import machine_lines

from orchestrator.evaluation.benchmarks.files import ItemFile, read_items
from orchestrator.evaluation.benchmarks.items import CountOptions
from orchestrator.evaluation.benchmarks.registry import benchmark_of
from orchestrator.evaluation.predictions import FILE, read_predictions
from orchestrator.evaluation.results import Scores, answered, compared, score

_EXAMPLE, _NAME = Path("examples/judge_bench_digits"), "vl_reward_bench"
_VOTES = (None, 1, 5, 15)
_SHOWN = ("accuracy", "consistent", "first_position", "unreadable")


def run(out: Path, seed: int) -> tuple[Path, float]:
    """The example with paths of its own: where its answers are, and seconds; 0 where they were there."""
    data, folder, file = out / "data", out / f"run_{seed}", out / f"run_{seed}.toml"
    measured = folder / "measured"
    if (measured / "scores.json").is_file():
        return measured, 0.0
    if not (data / "bench.parquet").is_file():
        subprocess.run([sys.executable, str(_EXAMPLE / "make_data.py"), str(data)], check=True)
    text = (_EXAMPLE / "pipeline.toml").read_text().replace("runs/judge_bench_digits_data", str(data))
    file.write_text(text.replace("runs/judge_bench_digits", str(folder)))
    begun = time.monotonic()
    command = [sys.executable, "-m", "orchestrator.train", "--config", str(file), "--run.seed", str(seed)]
    with file.with_suffix(".log").open("a") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        sys.exit(f"{file} ended with exit code {code}: {log.name}")
    return measured, time.monotonic() - begun


def counted(measured: Path, data: Path, seed: int) -> dict[int | None, Scores]:
    """By votes, the same answers."""
    benchmark = benchmark_of(_NAME)
    file = ItemFile(path=data / "bench.parquet", media_root=data, pictures=measured / "pictures")
    found, _ = answered(read_items(file, benchmark).items, read_predictions(measured / FILE))
    return {
        votes: score(
            _NAME,
            benchmark,
            found,
            model=f"votes {votes}",
            options=CountOptions(votes=votes, seed=seed),
            ways=("strict",),
        )
        for votes in _VOTES
    }


def table(by_votes: dict[int | None, Scores], seed: int) -> str:
    """Markdown: a row for each number of votes, then what all of them gain over one."""
    lines = [f"| seed {seed} | {' | '.join(_SHOWN)} |", "|---" * (len(_SHOWN) + 1) + "|"]
    for votes, scores in by_votes.items():
        told = "greedy" if votes is None else f"Voting@{votes}"
        lines.append(f"| {told} | {' | '.join(_cell(scores, name) for name in _SHOWN)} |")
    one = next(c for c in compared(by_votes[1], by_votes[15], seed=seed)["strict"] if c.name == "accuracy")
    low, high = one.interval or (one.difference, one.difference)
    lines += ["", f"Voting@15 less Voting@1: {one.difference:+.3f} ({low:+.3f} to {high:+.3f}), p = {one.p_value:.4f}"]
    return "\n".join(lines) + "\n"


def _cell(scores: Scores, name: str) -> str:
    low, high = scores.intervals["strict"][name] or (0.0, 0.0)
    return f"{scores.countings[0][name]:.3f} ({low:.3f}-{high:.3f})"


def main() -> None:
    """Run what has not been run, and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    told = [*machine_lines()]
    for seed in options.seeds:
        measured, seconds = run(out, seed)
        told += ["", table(counted(measured, out / "data", seed), seed), f"{seconds:.0f} s for all three stages"]
    text = "\n".join(told) + "\n"
    sys.stdout.write(text)
    (out / "judge_votes.md").write_text(text)


if __name__ == "__main__":
    main()
