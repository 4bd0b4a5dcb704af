"""A scalar reward model of another family than the policy is the reward, on a worker of the run's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from orchestrator.evaluation.predictions import read_predictions
from orchestrator.run.rollout_store import read_rollouts
from orchestrator.tasks.count import VOCABULARY, build_count_data
from orchestrator.tasks.digits_model import build_digits_model
from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows
from tests.unit.evaluation.released_files import cell, parquet
from tests.user_files import write_llava
from workers.models.reward_head import save_reward_head

pytestmark = [pytest.mark.integration, pytest.mark.soak]


def test_what_a_llava_says_of_a_qwens_answers_is_their_reward(tmp_path: Path) -> None:
    rm = write_llava(tmp_path / "rm")
    size = AutoConfig.from_pretrained(rm).get_text_config().hidden_size
    save_reward_head("linear", {"weight": torch.linspace(-1, 1, size)[None]}, rm, request=None)
    data = build_count_data(tmp_path / "count", seed=0)
    model = build_digits_model(tmp_path / "model", seed=0, words=VOCABULARY)
    result = run_cli(
        *("--algo", "grpo", "--model.path", str(model), "--data.path", str(data.train), "--data.format", "task"),
        *("--reward.functions", "scalar?weight=0.5", "length?most=8", "--reward.scalar_path", str(rm)),
        *("--run.dir", str(tmp_path / "run"), "--run.steps", "1", "--rollout.prompts_per_step", "4"),
        *("--rollout.samples_per_prompt", "4", "--policy.train_batch_size", "16", "--rollout.max_new_tokens", "8"),
        *("--rollout.engine", "transformers"),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    (row,) = [row for row in metric_rows(tmp_path / "run") if "reward/scalar" in row]
    assert row["judge/coverage"] == 1.0
    rollouts = read_rollouts(tmp_path / "run" / "rollouts" / "step_000001.parquet")
    numbers = {(r.uid, r.completion_text): r.parts["scalar"] for r in rollouts}
    assert len(set(numbers.values())) > 1, "it tells answers apart"
    for r in rollouts:
        assert r.parts["scalar"] == numbers[r.uid, r.completion_text]
        assert r.reward == pytest.approx(0.5 * (r.parts["scalar"] or 0.0) + (r.parts["length"] or 0.0))


def test_what_it_says_of_pairs_is_measured_by_the_same_workers(tmp_path: Path) -> None:
    rm = write_llava(tmp_path / "rm")
    size = AutoConfig.from_pretrained(rm).get_text_config().hidden_size
    save_reward_head("linear", {"weight": torch.linspace(-1, 1, size)[None]}, rm, request=None)
    said = ["it is one .", "no digit to see ."]
    rows = [
        {"id": f"mathverse_{i}", "query": "which ?", "response": said, "human_ranking": [i, 1 - i], "image": cell(i)}
        for i in range(2)
    ]
    file, out = parquet(tmp_path / "v.parquet", *rows), tmp_path / "out"
    command = [sys.executable, "-m", "orchestrator.evaluate", "--benchmark", "vl_reward_bench", "--model", str(rm)]
    done = subprocess.run(
        [*command, "--data", str(file), "--out", str(out)], capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rewards = [one.rewards for one in read_predictions(out / "predictions.parquet")]
    assert all(len(set(pair)) == 2 for pair in rewards) and rewards[0] != rewards[1], "it looks at image and response"
    right = sum(pair[i] > pair[1 - i] for i, pair in enumerate(rewards))
    figures = json.loads((out / "scores.json").read_text())["ways"]["strict"]["figures"]
    assert figures["accuracy"]["value"] == right / 2
