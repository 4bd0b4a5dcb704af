"""The second embedded task: what is the sum of the two handwritten digits in the picture?

No judgement but an answer, a number that a plain reward function compares with the row's. The digits are those of
``digits``; train and held-out pictures share none. The annotator of the demonstrations names both digits and often
forgets to carry: where the sum has two digits, the answer is usually the last one alone. Reinforcement is left to find
that out.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from orchestrator.run.folder import write_atomic
from orchestrator.tasks.digits import DEMONSTRATIONS, SIDE, WORDS, DigitsPaths, jsonl

QUESTION = "what is the sum ?"
VOCABULARY = f"{QUESTION} plus is " + " ".join(str(number) for number in range(19))
_HELD_OUT_IMAGES = 256
_NUM_TRAIN, _NUM_HELD_OUT = 3072, 256
_FORGETS = 0.7
"""Share of the demonstrations with a carry whose answer has lost it."""
_VERSION = 1


def build_count_data(folder: Path, *, seed: int) -> DigitsPaths:
    """Write pictures and the three JSONL files under ``folder``; does nothing when they are already there."""
    paths = DigitsPaths(folder / "train.jsonl", folder / "held_out.jsonl", folder / DEMONSTRATIONS)
    mark = folder / "manifest.json"
    content = json.dumps({"task": "count", "version": _VERSION, "seed": seed})
    if mark.is_file() and mark.read_text() == content:
        return paths
    digits: Any = load_digits()
    rng = np.random.Generator(np.random.Philox(seed))
    order = rng.permutation(len(digits.target))
    (folder / "images").mkdir(parents=True, exist_ok=True)

    def rows(name: str, among: np.ndarray, count: int) -> list[dict[str, Any]]:
        pairs = rng.choice(among, size=(count, 2))
        for index, (one, other) in enumerate(pairs):
            _write_picture(folder / "images" / f"{name}_{index:04d}.png", digits.images[one], digits.images[other])
        return [
            _row(f"images/{name}_{index:04d}.png", int(digits.target[one]), int(digits.target[other]))
            for index, (one, other) in enumerate(pairs)
        ]

    write_atomic(paths.held_out, jsonl(rows("held_out", order[:_HELD_OUT_IMAGES], _NUM_HELD_OUT)))
    train = rows("train", order[_HELD_OUT_IMAGES:], _NUM_TRAIN)
    write_atomic(paths.train, jsonl(train))
    write_atomic(paths.demonstrations, jsonl([_forgetful(row, rng) for row in train]))
    write_atomic(mark, content)
    return paths


def _row(image: str, one: int, other: int) -> dict[str, Any]:
    """A row of the format ``task``; its response is what a careful annotator would write."""
    total = one + other
    thought = f"<think> {WORDS[one]} plus {WORDS[other]} </think>"
    return {
        "images": [image],
        "problem": f"<image> {QUESTION}",
        "answer": total,
        "response": f"{thought} <answer> {total} </answer>",
    }


def _forgetful(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    total = int(row["answer"])
    if total < 10 or rng.random() >= _FORGETS:
        return row
    response = str(row["response"])
    return row | {"response": response.replace(f"<answer> {total} ", f"<answer> {total - 10} ")}


def _write_picture(path: Path, one: np.ndarray, other: np.ndarray) -> None:
    """Two digits of 8 x 8, the first above and left of the second."""
    half = SIDE // 2
    picture = Image.new("L", (SIDE, SIDE))
    for pixels, corner in ((one, (0, 0)), (other, (half, half))):
        grey = Image.fromarray((pixels * (255.0 / 16.0)).round().astype(np.uint8))
        picture.paste(grey.resize((half, half), Image.Resampling.BILINEAR), corner)
    partial = path.with_suffix(".partial")
    picture.convert("RGB").save(partial, format="PNG")
    partial.replace(path)
