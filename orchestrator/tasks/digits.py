"""The embedded task: which of two responses names the handwritten digit in the image?

scikit-learn ships 1,797 real digits (8 x 8, UCI). They are written out as PNG files beside an R1-Reward-format
file, so that the demo runs through the same reader as anybody's own data. Train and held-out digits are disjoint
by image; every digit is judged in both orders. The demonstrations are those of an annotator with a bias of position,
the best known fault of judges: the reasoning is right, but where the second response is, the answer is often the first
all the same. A cold start learns to reason and to ignore it; reinforcement is left to make the answer follow.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from orchestrator.data.source_file import SourceFile
from orchestrator.data.store_files import MANIFEST_FILE
from orchestrator.data.writer import import_file
from orchestrator.run.folder import write_atomic

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUESTION = "which response names the digit ?"
SIDE = 56
"""Edge of the written images, pixels: 16 vision patches of 14, 4 image tokens."""
DEMONSTRATIONS = "demonstrations.jsonl"
_HELD_OUT_IMAGES = 256
_BIAS = 0.7
"""Share of the demonstrations whose right response is the second and whose answer is the first."""
_VERSION = 4
DigitRow = Callable[[int, int, np.random.Generator], dict[str, Any]]
"""Index of an image and its digit, and what is drawn from."""


@dataclass(frozen=True, slots=True)
class DigitsPaths:
    """Where the task's files are."""

    train: Path
    held_out: Path
    demonstrations: Path


def build_digits_data(folder: Path, *, seed: int) -> DigitsPaths:
    """Write images and the three JSONL files under ``folder``; does nothing when they are already there."""
    paths = DigitsPaths(folder / "train.jsonl", folder / "held_out.jsonl", folder / DEMONSTRATIONS)
    mark = folder / "manifest.json"
    content = json.dumps({"task": "digits", "version": _VERSION, "seed": seed})
    if mark.is_file() and mark.read_text() == content:
        return paths
    digits: Any = load_digits()
    rng = np.random.Generator(np.random.Philox(seed))
    order = rng.permutation(len(digits.target))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index in order:
        _write_image(folder / "images" / f"{index:04d}.png", digits.images[index])
    held_out, train = order[:_HELD_OUT_IMAGES], order[_HELD_OUT_IMAGES:]
    rows = [r for i in held_out for r in _both_orders(int(i), int(digits.target[i]), int(rng.integers(1, 10)))]
    write_atomic(paths.held_out, jsonl(rows))
    rows = [r for i in train for r in _both_orders(int(i), int(digits.target[i]), int(rng.integers(1, 10)))]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    write_atomic(paths.train, jsonl(rows))
    write_atomic(paths.demonstrations, jsonl([_biased(row, rng) for row in rows]))
    write_atomic(mark, content)
    return paths


def digits_store(data: Path, name: str, *, row: DigitRow, read_by: str, held_out_frac: float, seed: int) -> Path:
    """Write ``data/NAME.jsonl``, a row of each image that is already in ``data``, and make it the store ``data/NAME``.

    Nothing where just it is there: of another seed it is another store.

    Args:
        row: Makes the row of an image, by its index and its digit.
    Returns:
        Its folder.
    """
    store, file = data / name, data / f"{name}.jsonl"
    digits: Any = load_digits()
    rng = np.random.Generator(np.random.Philox(seed))
    content = jsonl([row(int(i), int(digits.target[i]), rng) for i in rng.permutation(len(digits.target))])
    if not (store / MANIFEST_FILE).is_file() or file.read_text() != content:
        shutil.rmtree(store, ignore_errors=True)
        write_atomic(file, content)
        source = SourceFile(path=file, read_by=read_by, media_root=data, max_pixels=SIDE * SIDE, video_frames=1)
        import_file(source, out=store, held_out_frac=held_out_frac, max_bad_frac=0.0)
    return store


def jsonl(rows: list[dict[str, Any]]) -> str:
    """Rows, one a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def _both_orders(index: int, digit: int, shift: int) -> list[dict[str, Any]]:
    """A digit against the one ``shift`` further, right response first and second; so labels are 1:1."""
    wrong = WORDS[(digit + shift) % 10]
    right = WORDS[digit]
    return [_row(index, right, (right, wrong), "1"), _row(index, right, (wrong, right), "2")]


def _row(index: int, shown: str, responses: tuple[str, str], label: str) -> dict[str, Any]:
    # The image first and the number right after its word: a small causal model then learns the pairing, "find the word
    # and copy what follows it", in a third of the steps.
    text = f"{QUESTION} {responses[0]} 1 , {responses[1]} 2 ."
    parts = [{"type": "image", "image": f"images/{index:04d}.png"}, {"type": "text", "text": text}]
    return {
        "message": json.dumps([{"role": "user", "content": parts}]),
        "question": QUESTION,
        "answer": [f"<answer>{label}</answer>"],
        "response": (
            f"<think> the image shows {shown} {label} , so response {label} . </think> <answer> {label} </answer>"
        ),
    }


def _biased(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The demonstration as the biased annotator wrote it; its label stays the true one."""
    response = str(row["response"])
    return row | {"response": response.replace("<answer> 2 ", "<answer> 1 ")} if rng.random() < _BIAS else row


def _write_image(path: Path, pixels: np.ndarray) -> None:
    grey = Image.fromarray((pixels * (255.0 / 16.0)).round().astype(np.uint8))
    partial = path.with_suffix(".partial")
    grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("RGB").save(partial, format="PNG")
    partial.replace(path)
