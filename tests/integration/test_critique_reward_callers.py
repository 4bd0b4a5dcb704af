"""Who asks a critique reward model beside MM-DPO: an online run, and the benchmark. Their command lines, with vLLM."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.evaluation.predictions import read_predictions
from orchestrator.run.rollout_store import read_rollouts
from orchestrator.tasks.digits import DigitsPaths
from tests.critique_models import CRITIQUE, write_critique_model
from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows, online_arguments
from tests.unit.data.rows import picture, write_jsonl
from tests.unit.data.store_rows import compared

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(900)]
_WEIGHT = 0.5


@pytest.fixture(scope="module")
def critique_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_critique_model(tmp_path_factory.mktemp("critique_model") / "model")


def test_an_online_run_adds_its_reward_to_that_of_the_rules(
    critique_model: Path, unbroken_run: Path, warm_model: Path, digits: DigitsPaths, tmp_path: Path
) -> None:
    own = ["--reward.critique.path", str(critique_model), "--reward.critique.weight", str(_WEIGHT), "--run.steps", "2"]
    own += ["--reward.critique.max_new_tokens", "8", "--policy.tokens_per_microbatch", "512"]
    done = run_cli(*online_arguments(warm_model, digits, tmp_path / "run"), *own, timeout_s=600.0)
    assert done.returncode == 0, done.stderr[-3000:]

    # The first rollouts are those of the run without it: the same policy, prompts and seeds.
    first = "rollouts/step_000001.parquet"
    rows, without = read_rollouts(tmp_path / "run" / first), read_rollouts(unbroken_run / first)
    assert [r.completion_ids for r in rows] == [r.completion_ids for r in without]
    critiques = []
    for row, other in zip(rows, without, strict=True):
        critique = row.parts["critique"]
        assert "critique" not in other.parts and other.reward is not None and critique is not None
        assert row.reward == pytest.approx(other.reward + _WEIGHT * critique, abs=1e-9)
        critiques.append(critique)
    assert len(set(critiques)) > len(rows) // 2, "what is read depends on image and response"
    told = {row["step"]: row for row in metric_rows(tmp_path / "run")}
    assert told[1]["reward/critique"] == pytest.approx(sum(critiques) / len(critiques))
    assert "reward/critique" in told[2]


def test_the_benchmark_keeps_an_answer_for_every_response_and_asks_no_second_time(
    critique_model: Path, tmp_path: Path
) -> None:
    for name in ("mcq/a.png", "long/b.png"):
        picture(tmp_path / name)
    said = ("it is one .", "it is two .", "no digit to see .")
    pairs = [
        compared(said[c], said[r], id=name, image=name, prompt="which digit ?")
        for name in ("mcq/a.png", "long/b.png")
        for c, r in ((0, 1), (0, 2), (1, 2))
    ]
    file, out = write_jsonl(tmp_path / "pairs.jsonl", *pairs), tmp_path / "out"
    command = [sys.executable, "-m", "orchestrator.evaluate", "--benchmark", "mm_rlhf_reward_bench"]
    command += ["--model", str(critique_model), "--data", str(file), "--out", str(out)]
    command += ["--reward.critique.max_new_tokens", "8"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)

    assert done.returncode == 0, done.stderr[-3000:]
    strict = json.loads((out / "scores.json").read_text())["ways"]["strict"]
    assert strict["counts"] == {"rows": 6, "undecided": 0, "ids": 2}
    found = read_predictions(out / "predictions.parquet")
    assert {one.text for one in found} == {f"1: {CRITIQUE}\n\n2: {CRITIQUE}"}
    # One reward a response, whatever pairs it is in.
    for a, b, c in (found[:3], found[3:]):
        (first, second), (again, third), last = a.rewards, b.rewards, c.rewards
        assert first == again and last == (second, third) and len({first, second, third}) == 3
    right = [one.rewards[0] > one.rewards[1] for one in found]
    assert strict["figures"]["accuracy"]["value"] == sum(right) / len(right)
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert again.stdout == done.stdout and "answers are kept" not in again.stderr
