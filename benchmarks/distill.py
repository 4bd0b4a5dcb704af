"""On-policy distillation against reinforcement: a small student of a trained teacher, on the embedded task count.

    PYTHONPATH=. python benchmarks/distill.py OUT TEACHER [--steps 24]

TEACHER is a policy folder that a run on count has left. The student has half its width and half its layers, the same
tokenizer, and the same cold start. It then learns by `distill` and, from the same start, by `grpo`. Prints the held-out
accuracy by step, the KL to the teacher, and the steps to within two points of the teacher. Finished runs are not run
again.
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
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    teacher_run = options.teacher.parents[2]
    goal = accuracies(teacher_run)[max(accuracies(teacher_run))] - _CLOSE
    student = build_digits_model(options.out / "student", seed=0, words=VOCABULARY, hidden=64, layers=2)
    start = options.out / "start"
    if not (start / "checkpoints" / f"step_{_COLD_STEPS:06d}").is_dir():
        train("--algo", "sft", "--task", "count", "--model.path", str(student), "--run.dir", str(start))
    begun = str(start / "checkpoints" / f"step_{_COLD_STEPS:06d}" / "policy")
    common = ("--task", "count", "--model.path", begun, "--run.steps", str(options.steps))
    common += ("--run.eval_every", str(_EVERY), "--optimizer.lr", "1e-3", "--rollout.samples_per_prompt", "8")
    teacher = ("--distill.teacher_path", str(options.teacher))
    for algo, own in (("distill", teacher), ("grpo", ())):
        folder = options.out / algo
        if not (folder / "checkpoints" / f"step_{options.steps:06d}").is_dir():
            train("--algo", algo, *common, *own, "--run.dir", str(folder))
        curve = accuracies(folder)
        reached = next((step for step in sorted(curve) if curve[step] >= goal), None)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        kl = [row["kl/ref"] for row in rows if "kl/ref" in row]
        told = " ".join(f"{step}: {value:.3f}" for step, value in sorted(curve.items()))
        sys.stdout.write(f"{algo}: {told}\n")
        sys.stdout.write(f"  within {_CLOSE} of the teacher ({goal + _CLOSE:.3f}) at step {reached}")
        sys.stdout.write(f"; KL to it {kl[0]:.3f} -> {kl[-1]:.3f} nats a token\n" if any(kl) else "\n")


if __name__ == "__main__":
    main()
