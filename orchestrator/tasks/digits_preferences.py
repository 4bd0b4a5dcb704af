"""Preferences over the embedded task's images: four readings of a handwritten digit, one of them right.

A file in the format of VLFeedback, several rated responses to a prompt, imported as anybody's own would be. The wrong
readings tie, so that each instruction makes three pairs, which share prompt and image.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from orchestrator.data.reading import SourceFile
from orchestrator.data.store_files import MANIFEST_FILE
from orchestrator.data.writer import import_file
from orchestrator.run.folder import write_atomic
from orchestrator.tasks.digits import SIDE, WORDS

PROMPT = "which digit ?"
_HELD_OUT_FRAC = 0.2
_NUM_WRONG = 3
_RIGHT, _WRONG = 5, 1


def build_digits_preferences(data: Path, *, seed: int) -> Path:
    """Make the store ``data/preferences`` of the images that are already in ``data``; nothing where just it is there.

    Returns:
        Its folder.
    """
    store, file = data / "preferences", data / "preferences.jsonl"
    content = "".join(json.dumps(row) + "\n" for row in _rows(seed))
    # Of another seed it is another store.
    if not (store / MANIFEST_FILE).is_file() or file.read_text() != content:
        shutil.rmtree(store, ignore_errors=True)
        write_atomic(file, content)
        source = SourceFile(path=file, read_by="vlfeedback", media_root=data, max_pixels=SIDE * SIDE, video_frames=1)
        import_file(source, out=store, held_out_frac=_HELD_OUT_FRAC, max_bad_frac=0.0)
    return store


def _rows(seed: int) -> list[dict[str, Any]]:
    digits: Any = load_digits()
    rng = np.random.Generator(np.random.Philox(seed))
    return [_row(int(i), int(digits.target[i]), rng) for i in rng.permutation(len(digits.target))]


def _row(index: int, digit: int, rng: np.random.Generator) -> dict[str, Any]:
    wrong = rng.choice([d for d in range(10) if d != digit], size=_NUM_WRONG, replace=False).tolist()
    readings = [(digit, _RIGHT), *((d, _WRONG) for d in wrong)]
    readings = [readings[i] for i in rng.permutation(len(readings))]
    return {
        "id": index,
        "prompt": f"<image> {PROMPT}",
        "img_path": f"images/{index:04d}.png",
        "completions": [_completion(WORDS[reading], rating) for reading, rating in readings],
    }


def _completion(word: str, rating: int) -> dict[str, Any]:
    annotation = {"Visual Faithfulness": {"Rating": str(rating), "Rationale": ""}}
    return {"response": f"the image shows {word} .", "annotations": annotation, "model": "digits"}
