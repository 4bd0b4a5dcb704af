"""Who asks a critique reward model beside MM-DPO: an online run, and the benchmark. Their command lines, with vLLM."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    command = [sys.executable, "-m", "orchestrator.reward_bench", str(critique_model), str(file), str(out)]
    command += ["--max-new-tokens", "8"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)

    assert done.returncode == 0, done.stderr[-3000:]
    assert "overall          6    2" in done.stdout
    answers = [json.loads(line) for line in (out / "rewards.jsonl").read_text().splitlines()]
    assert [a["response"] for a in answers] == [*said, *said]
    assert {(a["critique"], a["status"]) for a in answers} == {(CRITIQUE, "ok")}
    figures = (out / "figures.txt").read_text()
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert again.stdout.endswith(figures)
    assert [json.loads(line) for line in (out / "rewards.jsonl").read_text().splitlines()] == answers
