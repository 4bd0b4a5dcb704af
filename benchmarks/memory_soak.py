"""Does memory stay flat? A digits run in which no image is ever seen twice; resident memory of every role by step.

python benchmarks/memory_soak.py [STEPS]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import machine_lines
from PIL import Image

from orchestrator.run.metrics import MEMORY_PREFIX
from orchestrator.tasks.digits import build_digits_data
from orchestrator.tasks.digits_model import build_digits_model

_PROMPTS = 32
_FROM_STEP = 20


def main() -> None:
    """Run, then print memory at a few steps and how far each role has moved since step 20."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print("\n".join(machine_lines()))  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data, model = _fresh_images(root, steps * _PROMPTS), build_digits_model(root / "model", seed=0)
        command = [
            *(sys.executable, "-m", "orchestrator.train", "--algo", "stable_reinforce", "--run.dir", str(root / "run")),
            *("--model.path", str(model), "--data.path", str(data), "--run.steps", str(steps)),
            *("--run.checkpoint_every", "50", "--rollout.prompts_per_step", str(_PROMPTS)),
            *("--policy.train_batch_size", str(_PROMPTS), "--rollout.max_new_tokens", "24", "--optimizer.lr", "1e-5"),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = [json.loads(line) for line in (root / "run" / "metrics.jsonl").read_text().splitlines()]
    by_step = {row["step"]: row for row in rows}
    roles = [name for name in rows[-1] if name.startswith(MEMORY_PREFIX)]
    shown = [_FROM_STEP, steps // 4, steps // 2, 3 * steps // 4, steps]
    print("| role | " + " | ".join(f"step {s}, MiB" for s in shown) + " | change |")  # noqa: T201
    print("| --- " * (len(shown) + 2) + "|")  # noqa: T201
    for role in roles:
        mib = [by_step[step][role] * 1024 for step in shown]
        cells = " | ".join(f"{value:.0f}" for value in mib)
        print(f"| {role.removeprefix(MEMORY_PREFIX)} | {cells} | {mib[-1] / mib[0] - 1:+.1%} |")  # noqa: T201


def _fresh_images(root: Path, count: int) -> Path:
    """A data file of ``count`` rows, each with an image of its own: a digit under noise."""
    source = build_digits_data(root / "digits", seed=0).train
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    images = root / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for index in range(count):
        row = dict(rows[index % len(rows)])
        message = json.loads(row["message"])
        part = message[0]["content"][0]
        pixels = np.asarray(Image.open(source.parent / part["image"]), dtype=np.int16)
        noisy = np.clip(pixels + rng.integers(-20, 21, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(images / f"{index:06d}.png")
        part["image"] = f"images/{index:06d}.png"
        lines.append(json.dumps(row | {"message": json.dumps(message)}) + "\n")
    (root / "data.jsonl").write_text("".join(lines))
    return root / "data.jsonl"


if __name__ == "__main__":
    main()
