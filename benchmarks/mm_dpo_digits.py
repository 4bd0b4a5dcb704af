"""MM-DPO on digits against plain DPO, over seeds: how often the policy names the digit in the image.

PYTHONPATH=. python benchmarks/mm_dpo_digits.py 0 1 2

Both start from one policy and learn from the same pairs for as many steps; plain DPO has one beta and imitates nothing.
Every answer is sampled with the same seeds. Seconds are of the whole pipeline, the making of data and policy aside.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine_lines

from orchestrator.data.store import PreferenceStore
from orchestrator.tasks.digits_critiques import named_digit

_EXAMPLE = Path("examples/mm_dpo_digits")
_SIDES = ("start", "mm_dpo", "dpo")


def main() -> None:
    """Print a row a seed and the means."""
    print("\n".join(machine_lines()))  # noqa: T201
    print("| seed | data s | pipeline s | reward model, held-out pairs | start | MM-DPO | DPO |")  # noqa: T201
    print("| --- | --- | --- | --- | --- | --- | --- |")  # noqa: T201
    rates: dict[str, list[float]] = {side: [] for side in _SIDES}
    for seed in map(int, sys.argv[1:] or ["0"]):
        with tempfile.TemporaryDirectory() as folder:
            row, found = _seed(Path(folder), seed)
        for side in _SIDES:
            rates[side].append(found[side])
        print(f"| {seed} | {row} | " + " | ".join(f"{found[s]:.3f}" for s in _SIDES) + " |", flush=True)  # noqa: T201
    for side, values in rates.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{side}: mean {statistics.fmean(values):.3f}, standard deviation {spread:.3f}")  # noqa: T201


def _seed(root: Path, seed: int) -> tuple[str, dict[str, float]]:
    data_s, _ = _timed(str(_EXAMPLE / "make_data.py"), str(root), str(seed))
    common = [
        *("-m", "orchestrator.train", "--config", str(_EXAMPLE / "config.toml"), "--run.seed", str(seed)),
        *("--model.path", str(root / "start"), "--data.path", str(root / "critiques")),
    ]
    pipeline_s, said = _timed(*common, "--run.dir", str(root / "mm_dpo"))
    agreement = next(line for line in said.splitlines() if line.endswith("held out")).split()[5]
    model = max((root / "mm_dpo" / "critique_rm" / "checkpoints").iterdir()) / "policy"
    plain = ["--mm_dpo.beta_mode", "fixed", "--mm_dpo.sft_weight", "0", "--reward.critique.path", str(model)]
    cache = ["--reward.critique.cache_path", str(root / "mm_dpo" / "critiques.sqlite")]
    _timed(*common, "--run.dir", str(root / "dpo"), "--reference.path", str(root / "mm_dpo/reference"), *plain, *cache)
    store = PreferenceStore(root / "critiques")
    rates = {side: right_readings(root / side, store, "after") for side in ("mm_dpo", "dpo")}
    rates["start"] = right_readings(root / "mm_dpo", store, "before")
    return f"{data_s:.0f} | {pipeline_s:.0f} | {agreement}", rates


def right_readings(run: Path, store: PreferenceStore, when: str) -> float:
    """Share of the held-out answers, ``before`` or ``after``, that name the digit in the image and no other."""
    right = {row.uid: {named_digit(r.text) for r in row.responses if r.rank == 1}.pop() for row in store.rows()}
    answers = [json.loads(line) for line in (run / "evaluations" / "answers.jsonl").read_text().splitlines()]
    return statistics.fmean(named_digit(answer[when]["text"]) == right[answer["uid"]] for answer in answers)


def _timed(*command: str) -> tuple[float, str]:
    began = time.monotonic()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return time.monotonic() - began, done.stdout


if __name__ == "__main__":
    main()
