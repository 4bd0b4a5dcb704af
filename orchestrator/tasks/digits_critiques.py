"""Graded responses with critiques over the embedded task's images, as a file in the format of MM-RLHF and its store.

Four responses to every digit: right and explained, right, wrong, and one that refuses to look; the last two tie. Each
critique says what the image shows and what the response says before it judges, so that whoever learns to write it has
learned to read. Beside them demonstrations for a policy to start from: one response a digit, drawn at random, so that
the policy reads, and often says something else all the same.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.run.folder import write_atomic
from orchestrator.tasks.digits import WORDS, digits_store, jsonl

PROMPT = "which digit ?"
REQUEST = "is the response right ?"
REFUSAL = "no digit to see ."
VOCABULARY = f"{PROMPT} {REQUEST} {REFUSAL} it is because right wrong explained says nothing and not"
"""Every word of the task that the embedded one does not have, and more."""
DEMONSTRATIONS = "start.jsonl"
HELD_OUT_FRAC = 0.2
"""Also of the demonstrations: split otherwise, a policy would start from images that it is measured on."""


def build_digits_critiques(data: Path, *, seed: int) -> Path:
    """Write ``data/critiques.jsonl`` and ``data/start.jsonl`` over the images that are already in ``data``.

    Returns:
        The folder of the critiques' store, ``data/critiques``.
    """
    store = digits_store(data, "critiques", row=_row, read_by="mm_rlhf", held_out_frac=HELD_OUT_FRAC, seed=seed)
    rng = np.random.Generator(np.random.Philox(seed + 1))
    rows = map(json.loads, (data / "critiques.jsonl").read_text().splitlines())
    write_atomic(data / DEMONSTRATIONS, jsonl([_demonstration(row, rng) for row in rows]))
    return store


def named_digit(response: str) -> str | None:
    """The one digit that a response names; None where it names none, or several."""
    named = {word for word in response.split() if word in WORDS}
    return named.pop() if len(named) == 1 else None


def _row(index: int, digit: int, rng: np.random.Generator) -> dict[str, Any]:
    shown, other = WORDS[digit], WORDS[(digit + int(rng.integers(1, 10))) % 10]
    graded = [
        (f"it is {shown} because the image shows {shown} .", f"says {shown} and right and explained ."),
        (f"it is {shown} .", f"says {shown} and right ."),
        (f"it is {other} .", f"says {other} and wrong ."),
        (REFUSAL, "says nothing and wrong ."),
    ]
    order = rng.permutation(len(graded)).tolist()
    place = [order.index(k) + 1 for k in range(len(graded))]
    return {
        "id": f"{index:04d}",
        "prompt": f"<image> {PROMPT}",
        "image": f"images/{index:04d}.png",
        "responses": [
            {"response": graded[k][0], "reason": f"the image shows {shown} , {graded[k][1]}", "model": "digits"}
            for k in order
        ],
        "ranking": "{}>{}>{}={}".format(*place),
    }


def _demonstration(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """One response of the four, as a row for supervised learning."""
    responses = row["responses"]
    chosen = responses[int(rng.integers(len(responses)))]["response"]
    turns = [{"from": "human", "value": row["prompt"]}, {"from": "gpt", "value": chosen}]
    return {"id": row["id"], "image": row["image"], "conversations": turns}
