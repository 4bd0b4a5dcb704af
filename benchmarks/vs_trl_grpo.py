"""Samples a second, ours against TRL's GRPOTrainer: same model, prompts, batch and number of optimizer steps, in turns.

    python -m venv .venv-trl && .venv-trl/bin/pip install -r benchmarks/trl/requirements.txt
    PYTHONPATH=. python benchmarks/vs_trl_grpo.py .venv-trl/bin/python [tiny] [realistic]

tiny        the digits model, 8 prompts x 8 samples, 128 tokens: random weights almost never end an answer
realistic   20 million parameters, an image of 256 tokens, answers that end by chance: mean about 80, at most 256

Both sides sample at temperature 1 and take one optimizer step a rollout; what stands before the first counted
steps of a run are not counted. TRL generates with transformers, which is what it has on a machine without GPU.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import machine_lines
from PIL import Image
from race_model import ModelShape, build_race_model

from orchestrator.tasks.digits import build_digits_data

_PROMPTS, _SAMPLES, _STEPS, _SKIPPED, _TURNS = 8, 8, 6, 2, 1


_SHAPES = {
    "tiny": (ModelShape(side=56, hidden=128, layers=4, vocab=4096), 128),
    "realistic": (ModelShape(side=448, hidden=384, layers=10, vocab=160), 256),
}
"""Model, and the longest answer."""


def main() -> None:
    """Race every shape that is asked for."""
    trl, names = sys.argv[1], sys.argv[2:] or list(_SHAPES)
    print("\n".join(machine_lines()))  # noqa: T201
    print("| shape | side | samples/s | s a step | mean length |\n| --- | --- | --- | --- | --- |")  # noqa: T201
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            shape, new_tokens = _SHAPES[name]
            model, data = _prepare(Path(folder), shape)
            for turn in range(_TURNS):
                run = Path(folder) / f"run{turn}"
                for side, figures in (
                    ("ours", _ours(model, data, run, new_tokens)),
                    ("TRL", _trl(trl, model, data, new_tokens)),
                ):
                    seconds, length = figures
                    step = statistics.median(seconds[_SKIPPED:])
                    cells = f"{_PROMPTS * _SAMPLES / step:.1f} | {step:.2f} | {length:.0f}"
                    print(f"| {name} | {side} | {cells} |", flush=True)  # noqa: T201


def _ours(model: Path, data: Path, run: Path, new_tokens: int) -> tuple[list[float], float]:
    batch = str(_PROMPTS * _SAMPLES)
    command = [
        *(sys.executable, "-m", "orchestrator.train", "--algo", "stable_reinforce", "--run.dir", str(run)),
        *("--model.path", str(model), "--data.path", str(data), "--run.steps", str(_STEPS)),
        *("--run.checkpoint_every", "1000", "--rollout.prompts_per_step", str(_PROMPTS), "--optimizer.lr", "1e-6"),
        *("--rollout.samples_per_prompt", str(_SAMPLES), "--policy.train_batch_size", batch),
        *("--rollout.max_new_tokens", str(new_tokens), "--optimizer.schedule", "constant"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["step"] > 0]
    for phase in ("rollout", "reward", "train", "sync"):
        mean = statistics.median(row[f"time/{phase}_s"] for row in rows[_SKIPPED:])
        print(f"ours, {phase}: {mean:.2f} s a step", file=sys.stderr)  # noqa: T201
    return [row["time/step_s"] for row in rows], statistics.mean(row["length/mean"] for row in rows)


def _trl(python: str, model: Path, data: Path, new_tokens: int) -> tuple[list[float], float]:
    script = Path(__file__).parent / "trl" / "run_grpo.py"
    numbers = [str(n) for n in (_PROMPTS, _SAMPLES, new_tokens, _STEPS)]
    result = subprocess.run([python, str(script), str(model), str(data), *numbers], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"TRL's side failed:\n{result.stderr[-3000:]}")
    told = json.loads(result.stdout.splitlines()[-1])
    return told["seconds"], told["mean_length"]


def _prepare(root: Path, shape: ModelShape) -> tuple[Path, Path]:
    """The digits files with images of the wanted size, and a model that takes them."""
    data = build_digits_data(root / "data", seed=0).train
    for file in (data.parent / "images").iterdir():
        Image.open(file).resize((shape.side, shape.side)).save(file)
    return build_race_model(root, shape), data


if __name__ == "__main__":
    main()
