"""The critic's rank is killed ten times in one run, at any moment of a step: what comes out is the unbroken run."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.tasks.count import VOCABULARY, build_count_data
from orchestrator.tasks.digits_model import build_digits_model
from tests.integration.chaos import run_with_accidents
from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows, rollout_trace, training_trace

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(3000)]
_ROUNDS, _SEED = 10, 16
_STEPS = _ROUNDS + 2
_LATEST_S = 3.0
"""After a row; about as long as a step takes."""
_OF_CRITIC = ("critic/loss", "critic/value_mean", "critic/return_mean", "critic/grad_norm", "critic/lr")


def _arguments(model: Path, data: Path, run_dir: Path) -> list[str]:
    return [
        *("--algo", "ppo", "--model.path", str(model), "--data.path", str(data), "--data.format", "task"),
        *("--run.dir", str(run_dir), "--run.steps", str(_STEPS), "--run.checkpoint_every", "1", "--run.seed", "5"),
        *("--run.max_restarts", str(_ROUNDS), "--run.silent_after_s", "60", "--run.keep_checkpoints", "2"),
        *("--reward.functions", "length?most=8", "--rollout.max_new_tokens", "8", "--rollout.engine", "transformers"),
        *("--rollout.prompts_per_step", "4", "--rollout.samples_per_prompt", "4", "--policy.train_batch_size", "8"),
        *("--optimizer.lr", "1e-3", "--optimizer.schedule", "constant", "--critic.lr", "2e-3"),
    ]


def test_a_run_whose_critic_is_killed_ten_times_is_the_unbroken_run(tmp_path: Path) -> None:
    data = build_count_data(tmp_path / "data", seed=0).train
    model = build_digits_model(tmp_path / "model", seed=0, words=VOCABULARY)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = run_cli(*_arguments(model, data, whole), timeout_s=1200)
    assert result.returncode == 0, result.stderr[-3000:]

    moment = random.Random(_SEED)
    accidents = [("critic rank killed", row, moment.uniform(0.0, _LATEST_S)) for row in range(1, _ROUNDS + 1)]
    print(accidents)  # noqa: T201 - so that a failure can be repeated
    result = run_with_accidents(_arguments(model, data, killed), killed, accidents)
    assert result.returncode == 0, result.stderr[-3000:]
    restarts = (killed / "log.jsonl").read_text().count("from the last checkpoint: lost")
    assert restarts == _ROUNDS, "every kill was one"

    assert [row["step"] for row in metric_rows(killed)] == list(range(_STEPS + 1))
    assert training_trace(killed) == training_trace(whole)
    assert rollout_trace(killed) == rollout_trace(whole)
    of_critic = [[{name: row[name] for name in _OF_CRITIC} for row in metric_rows(run)[1:]] for run in (whole, killed)]
    assert of_critic[0] == of_critic[1]
    last = Path("checkpoints") / f"step_{_STEPS:06d}"
    files = [file.relative_to(whole) for file in sorted((whole / last).rglob("*.safetensors"))]
    assert len(files) == 5, "weights and optimizer state of policy and critic, and the critic's head"
    for file in files:
        one, other = (load_file(run / file) for run in (whole, killed))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one), file
