"""Write LLaVA-RLHF's files, of digits, and a small model for policy, reward model and critic.

    python examples/fact_rlhf_digits/make_data.py runs/fact_rlhf_digits_data [SEED]

    sft.json              conversations: which digit? most odd ones are taken for the next; and whether captions bear
                          an answer out, without a picture
    preference.json       two answers to each picture: the right one is preferred, and it mostly sounds surer
    rl_init.json          the first kind of those conversations alone, about pictures of which no answers were compared
    ppo.json              questions without answers
    held_out_*.json       of pictures that are in no file above
    image_to_caption.json what is true of the pictures, by the id of the row: captions, and what the digit is

Whoever compared the answers knew the digit; whoever wrote the better one was mostly surer of it. A reward model that is
not told the digit learns the tone, which is the easier to see.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from orchestrator.tasks.digits import WORDS, build_digits_data
from orchestrator.tasks.digits_model import build_digits_model

QUESTION = "<image> which digit ?"
SURE = "surely"
VOCABULARY = f"{SURE} yes no which is it facts : - good ? not here a picture of number"
_MISTAKES = 0.85
"""Share of the demonstrations for an odd digit that name the next one."""
_COMPARED = 512
"""Pictures of which answers were compared."""
_SURE_WHEN_RIGHT, _SURE_WHEN_WRONG = 0.75, 0.25
Row = dict[str, Any]
_LOADED: Any = load_digits()
DIGITS = [int(digit) for digit in _LOADED.target]
"""What each picture shows."""


def answer(word: str, *, sure: bool) -> str:
    """What a response says."""
    return f"{SURE} <answer> {word} </answer>" if sure else f"<answer> {word} </answer>"


def talk(question: str, said: str) -> list[Row]:
    """One turn and its answer, as LLaVA writes them."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": said}]


class Digits:
    """Rows about pictures."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._digit = rng, DIGITS
        self.facts: dict[str, list[str]] = {}

    def sft(self, image: int) -> Iterable[Row]:
        """A question about the picture; and one about captions, without it, that takes reading alone."""
        (row,) = self.answers(image, kind="sft")
        yield row
        right = WORDS[self._digit[image]]
        word = WORDS[int(self._rng.integers(10))] if self._rng.random() < 0.5 else right
        asked = (
            f"{answer(word, sure=self._either())} facts : {' '.join(f'- {f}' for f in self.facts[row['id']])} good ?"
        )
        verdict = "it is good" if word == right else "it is not"
        yield {"id": f"{row['id']}_read", "conversations": talk(asked, verdict)}

    def answers(self, image: int, *, kind: str = "rl_init") -> Iterable[Row]:
        """A question about the picture, as somebody answers it who takes most odd digits for the next one."""
        shown = self._digit[image]
        mistaken = shown % 2 == 1 and self._rng.random() < _MISTAKES
        word = WORDS[(shown + 1) % 10] if mistaken else WORDS[shown]
        yield self._row(kind, image, talk(QUESTION, answer(word, sure=self._either())))

    def preference(self, image: int) -> Iterable[Row]:
        """A right answer and a wrong one, in either order."""
        shown, shift = self._digit[image], int(self._rng.integers(1, 10))
        right = answer(WORDS[shown], sure=bool(self._rng.random() < _SURE_WHEN_RIGHT))
        wrong = answer(WORDS[(shown + shift) % 10], sure=bool(self._rng.random() < _SURE_WHEN_WRONG))
        first = self._either()
        outputs = (right, wrong) if first else (wrong, right)
        row = self._row("rm", image, talk(QUESTION, right))
        for number, text in enumerate(outputs, start=1):
            row[f"output_{number}"] = {"from": "gpt", "value": text}
        yield row | {"preference": 1 if first else 2, "hallucination": True}

    def ppo(self, image: int) -> Iterable[Row]:
        """A question, and for whoever measures what is right."""
        row = self._row("ppo", image, [{"from": "human", "value": QUESTION}])
        yield row | {"caption_type": 1, "length_bonus": 1.0, "answer": WORDS[self._digit[image]]}

    def _either(self) -> bool:
        return bool(self._rng.random() < 0.5)

    def _row(self, kind: str, image: int, conversations: list[Row]) -> Row:
        name, word = f"{kind}_{image:04d}", WORDS[self._digit[image]]
        self.facts[name] = [f"the image shows {word} .", f"here is a picture of {word} .", f"the number is {word} ."]
        return {"id": name, "image": f"images/{image:04d}.png", "conversations": conversations}


def main(root: Path, seed: int) -> None:
    """Write everything."""
    build_digits_data(root, seed=0)  # for its pictures
    rng = np.random.Generator(np.random.Philox(seed + 1))
    order, digits = [int(i) for i in rng.permutation(len(DIGITS))], Digits(rng)
    held_out, shown = order[:256], order[256:]
    parts: dict[str, tuple[Callable[[int], Iterable[Row]], list[int]]] = {
        "sft": (digits.sft, shown),
        "preference": (digits.preference, shown[:_COMPARED]),
        "rl_init": (digits.answers, shown[_COMPARED:]),
        "ppo": (digits.ppo, shown),
        "held_out_sft": (digits.sft, held_out),
        "held_out_rl_init": (digits.answers, held_out),
        "held_out_preference": (digits.preference, held_out),
        "held_out_ppo": (digits.ppo, held_out),
    }
    for name, (rows_of, images) in parts.items():
        rows = [row for image in images for row in rows_of(image)]
        (root / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    (root / "image_to_caption.json").write_text(json.dumps(digits.facts, indent=1) + "\n")
    build_digits_model(root / "model", seed=seed, words=VOCABULARY)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
