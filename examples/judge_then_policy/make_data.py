"""Write what the example learns from: judgements for a judge, answers for a policy, and a small model for both.

    python examples/judge_then_policy/make_data.py runs/judge_then_policy_data

The judge's rows are those of the embedded task digits, with right demonstrations. The policy is asked which digit a
picture shows; whoever wrote its demonstrations mostly takes an odd digit for the next one. Held-out pictures are in no
training file.
"""

import json
import sys
from pathlib import Path

import numpy as np

from orchestrator.tasks.digits import WORDS, build_digits_data
from orchestrator.tasks.digits_model import build_digits_model

_MISTAKES = 0.85
"""Share of the demonstrations for an odd digit that name the next one."""


def rows_of_policy(judgements: Path, rng: np.random.Generator) -> list[dict[str, str]]:
    """A row a picture, from the rows of the judge."""
    rows: dict[str, dict[str, str]] = {}
    for line in judgements.read_text().splitlines():
        row = json.loads(line)
        image = json.loads(row["message"])[0]["content"][0]["image"]
        shown = row["response"].split()[4]
        if image not in rows:
            digit = WORDS.index(shown)
            mistaken = digit % 2 == 1 and rng.random() < _MISTAKES
            said = WORDS[(digit + 1) % 10] if mistaken else shown
            rows[image] = {"image": image, "problem": "<image> which digit ?", "answer": shown, "response": said}
    return list(rows.values())


def main(root: Path) -> None:
    files = build_digits_data(root, seed=0)
    rng = np.random.Generator(np.random.Philox(1))
    for name, judgements in (("policy", files.train), ("policy_held_out", files.held_out)):
        rows = rows_of_policy(judgements, rng)
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_digits_model(root / "model", seed=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
