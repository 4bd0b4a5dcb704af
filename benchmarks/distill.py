"""On-policy distillation against reinforcement: a small student of a trained teacher, on the embedded task count.

    PYTHONPATH=. python benchmarks/distill.py OUT TEACHER [--steps 20] [--seeds 0]

TEACHER is a policy folder that a run on count has left. The student has half its width and half its layers, the same
tokenizer, and the same cold start. It then learns by `distill` and, from the same start, by `grpo`, from 256 samples a
step each: `distill` of as many prompts, `grpo`, which compares samples, of 32. Prints the held-out accuracy by step,
the KL to the teacher, and the steps to within two points of the teacher. Finished runs are not run again.
"""

import argparse
import json
import sys
from pathlib import Path

from task_runs import accuracies, train

from orchestrator.tasks.count import VOCABULARY
from orchestrator.tasks.digits_model import build_digits_model

_COLD_STEPS = 200
_CLOSE = 0.02
_EVERY = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    teacher_run = options.teacher.parents[2]
    goal = accuracies(teacher_run)[max(accuracies(teacher_run))] - _CLOSE
    for seed in options.seeds:
        _compare(options.out / f"seed_{seed}", options.teacher, goal, steps=options.steps, seed=seed)


def _compare(out: Path, teacher: Path, goal: float, *, steps: int, seed: int) -> None:
    common = ("--task", "count", "--run.seed", str(seed))
    student = build_digits_model(out / "student", seed=seed, words=VOCABULARY, hidden=64, layers=2)
    start = out / "start"
    if not (start / "checkpoints" / f"step_{_COLD_STEPS:06d}").is_dir():
        train("--algo", "sft", *common, "--model.path", str(student), "--run.dir", str(start))
    begun = str(start / "checkpoints" / f"step_{_COLD_STEPS:06d}" / "policy")
    common += ("--model.path", begun, "--run.steps", str(steps), "--run.eval_every", str(_EVERY))
    for algo, own in (("distill", ("--distill.teacher_path", str(teacher))), ("grpo", ())):
        folder = out / algo
        if not (folder / "checkpoints" / f"step_{steps:06d}").is_dir():
            train("--algo", algo, *common, "--optimizer.lr", "1e-3", *own, "--run.dir", str(folder))
        curve = accuracies(folder)
        reached = next((step for step in sorted(curve) if curve[step] >= goal), None)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        kl = [row["kl/ref"] for row in rows if "kl/ref" in row]
        told = " ".join(f"{step}: {value:.3f}" for step, value in sorted(curve.items()))
        sys.stdout.write(f"seed {seed}, {algo}: {told}\n")
        sys.stdout.write(f"  within {_CLOSE} of the teacher ({goal + _CLOSE:.3f}) at step {reached}")
        sys.stdout.write(f"; KL to it {kl[0]:.3f} -> {kl[-1]:.3f} nats a token\n" if any(kl) else "\n")


if __name__ == "__main__":
    main()
