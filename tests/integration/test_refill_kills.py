"""Dynamic sampling over three epochs of 100 prompts, its driver killed three times: no prompt is lost or repeated."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.run.cursor import shuffled_order
from orchestrator.tasks.count import VOCABULARY, build_count_data
from orchestrator.tasks.digits_model import build_digits_model
from tests.integration.conftest import run_cli
from tests.integration.kills import run_and_kill
from tests.integration.runs import metric_rows, rollout_trace

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(1200)]
_PROMPTS, _STEPS, _SAMPLES, _SEED = 100, 18, 2, 3
_FUNCTION = """
import os
from pathlib import Path


def score(completion, row):
    with open(Path(__file__).with_name("asked.log"), "a") as log:
        os.write(log.fileno(), f"{row['number']}\\n".encode())
    return float(len(completion) % 2)
"""


def _arguments(folder: Path, data: Path, model: Path) -> list[str]:
    """About half of the groups earn the same, and are replaced."""
    folder.mkdir()
    (folder / "reward.py").write_text(_FUNCTION)
    return [
        *("--algo", "dapo", "--run.dir", str(folder / "run"), "--run.steps", str(_STEPS), "--run.seed", str(_SEED)),
        *("--run.checkpoint_every", "3", "--run.eval_every", "100", "--model.path", str(model)),
        *("--data.path", str(data), "--data.format", "task", "--reward.functions", f"{folder / 'reward.py'}:score"),
        *("--rollout.prompts_per_step", "12", "--rollout.samples_per_prompt", str(_SAMPLES), "--rollout.max_refills"),
        *("2", "--rollout.max_new_tokens", "8", "--rollout.engine", "transformers", "--policy.train_batch_size", "24"),
        *("--optimizer.lr", "1e-4"),
    ]


def _asked(folder: Path) -> Counter[int]:
    return Counter(int(line) for line in (folder / "asked.log").read_text().split())


def _cursors(folder: Path) -> dict[str, object]:
    """Of every checkpoint that is kept."""
    manifests = sorted((folder / "run" / "checkpoints").glob("*/manifest.json"))
    return {file.parent.name: json.loads(file.read_text())["cursor"] for file in manifests}


def test_three_epochs_with_kills_ask_every_prompt_as_often_and_in_the_same_order(tmp_path: Path) -> None:
    paths = build_count_data(tmp_path / "count", seed=0)
    data = paths.train.with_name("hundred.jsonl")
    rows = [json.loads(line) for line in paths.train.read_text().splitlines()[:_PROMPTS]]
    data.write_text("".join(json.dumps(row | {"number": number}) + "\n" for number, row in enumerate(rows)))
    model = build_digits_model(tmp_path / "model", seed=0, words=VOCABULARY)

    whole = tmp_path / "whole"
    result = run_cli(*_arguments(whole, data, model), timeout_s=600)
    assert result.returncode == 0, result.stderr[-3000:]
    refills = [row["rollout/refills"] for row in metric_rows(whole / "run") if "rollout/refills" in row]
    assert len(refills) == _STEPS and min(refills) > 0

    # Every prompt was asked about once an epoch, and those once more that the epoch under way has begun with.
    cursor = list(_cursors(whole).values())[-1]
    assert isinstance(cursor, dict)
    epoch, position = cursor["epoch"], cursor["position"]
    assert epoch >= 3
    begun = set(shuffled_order(_PROMPTS, seed=_SEED, epoch=epoch)[:position])
    assert _asked(whole) == {n: _SAMPLES * (epoch + (n in begun)) for n in range(_PROMPTS)}

    killed, moment = tmp_path / "killed", random.SystemRandom()
    arguments = _arguments(killed, data, model)
    for rows_before in (4, 9, 14):
        delay_s = moment.uniform(0.0, 2.0)
        print(f"killed {delay_s:.2f} s after row {rows_before}")  # noqa: T201 - so that a failure can be repeated
        run_and_kill(arguments, killed / "run", rows_before=rows_before, delay_s=delay_s)
    result = run_cli(*arguments, timeout_s=600)
    assert result.returncode == 0, result.stderr[-3000:]
    assert _cursors(killed) == _cursors(whole)
    assert rollout_trace(killed / "run") == rollout_trace(whole / "run")
    # A step that was cut off is asked about again, by the same prompts.
    again = _asked(killed) - _asked(whole)
    assert not _asked(whole) - _asked(killed) and sum(again.values()) < 3 * 3 * 3 * 12 * _SAMPLES
