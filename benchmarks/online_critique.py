"""Online learning from the rewards of a critique reward model alone: does a policy come to name the right digit?

python examples/mm_dpo_digits/make_data.py runs/mm_dpo_digits
python -m orchestrator.train --config examples/mm_dpo_digits/config.toml
PYTHONPATH=. python benchmarks/online_critique.py runs/mm_dpo_digits runs/mm_dpo/critique_rm

The prompts are those of the store's training split. The rules of the reward service find nothing to reward in their
answers, so that every difference of reward is the critique reward model's. The rates are of sampled answers, step by
step, to prompts that come once.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine_lines

from orchestrator.data.records import Instruction
from orchestrator.data.store import PreferenceStore
from orchestrator.run.model_folder import policy_folder
from orchestrator.run.rollout_store import read_rollouts
from orchestrator.tasks.digits_critiques import named_digit

_STEPS = 20


def main() -> None:
    """Print the share of right readings among the rollouts of every fifth step."""
    root, critique_model = Path(sys.argv[1]), policy_folder(Path(sys.argv[2]))
    print("\n".join(machine_lines()))  # noqa: T201
    store = PreferenceStore(root / "critiques")
    right = {r.media[0].path: {named_digit(x.text) for x in r.responses if x.rank == 1}.pop() for r in store.rows()}
    with tempfile.TemporaryDirectory() as folder:
        run, file = Path(folder) / "run", root / "online.jsonl"
        file.write_text("".join(json.dumps(_row(r)) + "\n" for r in store.rows() if r.split == "train"))
        began = time.monotonic()
        _train(run, file, root, critique_model)
        print(f"{_STEPS} steps in {time.monotonic() - began:.0f} s\n")  # noqa: T201
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        print("| step | right readings | reward/critique | time/reward_s |\n| --- | --- | --- | --- |")  # noqa: T201
        for step in (1, *range(5, _STEPS + 1, 5)):
            rows = read_rollouts(run / "rollouts" / f"step_{step:06d}.parquet")
            rate = statistics.fmean(
                named_digit(row.completion_text) == right[str(Path(row.media_paths[0]).relative_to(root.resolve()))]
                for row in rows
            )
            told = next(m for m in metrics if m["step"] == step)
            row = f"{rate:.3f} of {len(rows)} | {told['reward/critique']:.2f} | {told['time/reward_s']:.1f}"
            print(f"| {step} | {row} |")  # noqa: T201


def _row(instruction: Instruction) -> dict[str, object]:
    """A prompt as an online run reads it. Its label is nobody's: no answer has the form that is compared with one."""
    question = " ".join(p["text"] for turn in instruction.messages for p in turn["content"] if p["type"] == "text")
    content = [{"type": "image", "image": instruction.media[0].path}, {"type": "text", "text": question}]
    return {"message": json.dumps([{"role": "user", "content": content}]), "question": question, "answer": "1"}


def _train(run: Path, file: Path, root: Path, critique_model: Path) -> None:
    command = [
        *(sys.executable, "-m", "orchestrator.train", "--algo", "reinforce_pp", "--run.dir", str(run)),
        *("--model.path", str(root / "start"), "--data.path", str(file), "--data.media_root", str(root)),
        *("--run.steps", str(_STEPS), "--run.eval_every", "1000", "--run.checkpoint_every", "1000"),
        *("--rollout.prompts_per_step", "64", "--rollout.samples_per_prompt", "4", "--rollout.max_new_tokens", "24"),
        *("--policy.train_batch_size", "128", "--optimizer.lr", "4e-4", "--optimizer.schedule", "linear"),
        *("--reward.critique.path", str(critique_model), "--reward.critique.weight", "1", "--algorithm.kl_coef", "0"),
        *("--reward.critique.max_new_tokens", "32", "--data.max_prompt_tokens", "256"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    main()
