"""Pairs a second, ours against TRL's DPOTrainer: same model, preference pairs and number of steps, one run each.

    python -m venv .venv-trl && .venv-trl/bin/pip install -r benchmarks/trl/requirements.txt
    PYTHONPATH=. python benchmarks/vs_trl_dpo.py .venv-trl/bin/python [two] [four]

two     2 responses to an instruction: 8 instructions, 8 pairs a step
four    4 responses to an instruction: 4 instructions, 24 pairs a step

Every instruction has an image of 64 tokens and a prompt of 400; a response has 40. TRL computes the reference at every
step, since it cannot compute it beforehand where there are images; ours is measured with either.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_lines
from PIL import Image
from race_model import ModelShape, build_race_model

from orchestrator.data.reading import SourceFile
from orchestrator.data.writer import import_file
from orchestrator.tasks.digits import WORDS, build_digits_data

_MODEL = ModelShape(side=224, hidden=256, layers=6, vocab=4096)
_SHAPES = {"two": (2, 8), "four": (4, 4)}
"""Responses to an instruction, and instructions a step."""
_STEPS, _SKIPPED, _PROMPT_WORDS, _RESPONSE_WORDS = 8, 3, 400, 40
_FIRST, _LAST = "<image> ", " ?"


def main() -> None:
    """Race every shape that is asked for."""
    trl, names = sys.argv[1], sys.argv[2:] or list(_SHAPES)
    print("\n".join(machine_lines()))  # noqa: T201
    print("| shape | side | pairs/s | s a step | peak GiB |\n| --- | --- | --- | --- | --- |")  # noqa: T201
    for name in names:
        responses, instructions = _SHAPES[name]
        pairs = instructions * len(list(combinations(range(responses), 2)))
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            model, store, file = _prepare(root, responses, instructions)
            figures = {
                "ours, reference worker": _ours(model, store, root / "a", instructions, "worker"),
                "ours, precomputed": _ours(model, store, root / "b", instructions, "precomputed"),
                "TRL": _trl(trl, model, file, pairs),
            }
        for side, (seconds, peak) in figures.items():
            step = statistics.median(seconds[_SKIPPED:])
            print(f"| {name} | {side} | {pairs / step:.2f} | {step:.2f} | {peak:.1f} |", flush=True)  # noqa: T201


def _ours(model: Path, store: Path, run: Path, instructions: int, mode: str) -> tuple[list[float], float]:
    command = [
        *(sys.executable, "-m", "orchestrator.train", "--algo", "dpo", "--run.dir", str(run)),
        *("--model.path", str(model), "--data.path", str(store), "--run.steps", str(_STEPS)),
        *("--run.checkpoint_every", "1000", "--policy.train_batch_size", str(instructions)),
        *("--optimizer.lr", "1e-6", "--optimizer.schedule", "constant", "--reference.mode", mode),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["step"] > 0]
    peak = max(sum(v for k, v in row.items() if k.startswith("memory/rss_gib/")) for row in rows)
    return [row["time/step_s"] for row in rows], peak


def _trl(python: str, model: Path, file: Path, pairs: int) -> tuple[list[float], float]:
    script = Path(__file__).parent / "trl" / "run_dpo.py"
    numbers = [str(pairs), str(_STEPS)]
    result = subprocess.run([python, str(script), str(model), str(file), *numbers], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"TRL's side failed:\n{result.stderr[-3000:]}")
    told = json.loads(result.stdout.splitlines()[-1])
    return told["seconds"], told["peak_gib"]


def _prepare(root: Path, responses: int, instructions: int) -> tuple[Path, Path, Path]:
    """Model, our store and TRL's file of the same pairs."""
    data = build_digits_data(root / "data", seed=0).train.parent
    rng = np.random.default_rng(0)
    rows, pairs = [], []
    for number in range(instructions * _STEPS):
        image = f"images/{number:04d}.png"
        Image.open(data / image).resize((_MODEL.side, _MODEL.side)).save(data / image)
        prompt = " ".join(rng.choice(WORDS, _PROMPT_WORDS)) + _LAST
        said = [" ".join(rng.choice(WORDS, _RESPONSE_WORDS)) for _ in range(responses)]
        rows.append(_row(number, prompt, image, said))
        pairs += [
            {"prompt": prompt, "image": str(data / image), "chosen": said[i], "rejected": said[j]}
            for i, j in combinations(range(responses), 2)
        ]
    file, pairs_file = data / "feedback.jsonl", data / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs_file.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    source = SourceFile(path=file, read_by="vlfeedback", media_root=data, max_pixels=10**6, video_frames=1)
    import_file(source, out=data / "store", held_out_frac=0.0, max_bad_frac=0.0)
    return build_race_model(root, _MODEL), data / "store", pairs_file


def _row(number: int, prompt: str, image: str, said: list[str]) -> dict[str, Any]:
    completions = [
        {"response": text, "annotations": {"Helpfulness": {"Rating": str(5 - k)}}, "model": "race"}
        for k, text in enumerate(said)
    ]
    return {"id": number, "prompt": _FIRST + prompt, "img_path": image, "completions": completions}


if __name__ == "__main__":
    main()
