"""Preferences over the embedded task's images: four readings of a handwritten digit, one of them right.

A file in the format of VLFeedback, several rated responses to a prompt, imported as anybody's own would be. The wrong
readings tie, so that each instruction makes three pairs, which share prompt and image.
"""

from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.tasks.digits import WORDS, digits_store

PROMPT = "which digit ?"
_HELD_OUT_FRAC = 0.2
_NUM_WRONG = 3
_RIGHT, _WRONG = 5, 1


def build_digits_preferences(data: Path, *, seed: int) -> Path:
    """Make the store ``data/preferences`` of the images that are already in ``data``; return its folder."""
    return digits_store(data, "preferences", row=_row, read_by="vlfeedback", held_out_frac=_HELD_OUT_FRAC, seed=seed)


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
