"""What an evaluation kit counts beside what we count, of the same answers of one model to the same ten rows.

PYTHONPATH=. python benchmarks/kits.py OUT evalscope=PYTHON lmms-eval=PYTHON

PYTHON is the interpreter of the environment that the kit is installed in (docs/benchmarks.md).
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
from machine import machine_lines

from orchestrator.evaluate import main as evaluate
from orchestrator.evaluation.answers import parse_yes_no
from orchestrator.evaluation.benchmarks.pope import pope_official
from tests.kit_case import NUM_TOKENS, KitCase, write_case, write_talker

_TASKS = {"evalscope": "pope", "lmms-eval": "local_pope"}
_FOLDER = "import importlib.util as u; print(u.find_spec('lmms_eval').submodule_search_locations[0])"


def main() -> None:
    """Print, for each kit, its answers with every verdict, then the scores."""
    out, kits = Path(sys.argv[1]).resolve(), dict(word.split("=", 1) for word in sys.argv[2:])
    print("\n".join(machine_lines()))  # noqa: T201
    model = write_talker(out / "model")
    package = None
    if "lmms-eval" in kits:
        command = [kits["lmms-eval"], "-I", "-c", _FOLDER]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        package = Path(told.stdout.strip())
    case = write_case(out / "case", lmms_eval=package)
    for name, python in kits.items():
        _compare(name, python, model, case, out / name)


def _compare(name: str, python: str, model: Path, case: KitCase, out: Path) -> None:
    began = time.monotonic()
    passed_on = case.evalscope if name == "evalscope" else case.lmms_eval
    flags = ["--kit", name, "--kit-python", python, "--model", str(model), "--tasks", _TASKS[name], "--out", str(out)]
    flags += ["--benchmark", "pope", "--data", str(case.file), "--max-images", "1"]
    flags += ["--rollout.max_new_tokens", str(NUM_TOKENS[name]), "--rollout.max_num_seqs", "8"]
    code = evaluate([*flags, "--kit-args", *passed_on])
    print(f"exit code {code} after {time.monotonic() - began:.0f} s")  # noqa: T201
    if code:
        return
    told = json.loads((out / "scores.json").read_text())
    print(f"\nkit: {told['asked']['kit']}, served by {', '.join(told['asked']['served_by'])}")  # noqa: T201
    print("| row | label | answer | the kit's score | strict | official |\n|---|---|---|---|---|---|")  # noqa: T201
    rows = pq.read_table(out / "predictions.parquet").to_pylist()
    for row in sorted(rows, key=lambda row: row["row"]):
        scores, label = json.loads(row["scores"]), row["truth"].lower()
        text = row["text"]
        cells = [row["row"], label, f"`{text}`", next(iter(scores.values())), parse_yes_no(text), pope_official(text)]
        print(f"| {' | '.join(map(str, cells))} |")  # noqa: T201


if __name__ == "__main__":
    main()
