"""How often the policy named the digit in the image, before and after: the answers that a run of mm_dpo has kept.

python examples/mm_dpo_digits/right_readings.py runs/mm_dpo runs/mm_dpo_digits/critiques
"""

import json
import sys
from pathlib import Path

from orchestrator.data.store import PreferenceStore
from orchestrator.tasks.digits_critiques import named_digit

run, store = Path(sys.argv[1]), PreferenceStore(Path(sys.argv[2]))
right = {row.uid: {named_digit(r.text) for r in row.responses if r.rank == 1}.pop() for row in store.rows()}
answers = [json.loads(line) for line in (run / "evaluations" / "answers.jsonl").read_text().splitlines()]
for when in ("before", "after"):
    rate = sum(named_digit(answer[when]["text"]) == right[answer["uid"]] for answer in answers) / len(answers)
    print(f"right readings {when}: {rate:.3f} of {len(answers)}")  # noqa: T201
