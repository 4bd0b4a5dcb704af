"""Whole runs of PPO whose critic begins otherwise than the policy, or learns through adapters; each resumed exactly."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.run.rollout_store import read_rollouts
from orchestrator.tasks.count import VOCABULARY, build_count_data
from orchestrator.tasks.digits_model import build_digits_model
from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows, rollout_trace, training_trace

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(1500)]
_STEPS = 4
_OF_CRITIC = ("critic/loss", "critic/value_mean", "critic/return_mean", "critic/grad_norm", "critic/lr")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("count") / "model", seed=0, words=VOCABULARY)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_count_data(tmp_path_factory.mktemp("count") / "data", seed=0).train


@pytest.fixture(scope="module")
def reward_model(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two steps of ``scalar_rm`` make of the model: a head that is no longer zero."""
    root = tmp_path_factory.mktemp("rm")
    pictures = [json.loads(line) for line in data.read_text().splitlines()[:32]]
    rows = [
        {
            "id": n,
            "image": row["images"][0],
            "conversations": [
                {"from": "human", "value": "<image>\nwhat is the sum ?"},
                {"from": "gpt", "value": "no idea ."},
            ],
            "output_1": {"from": "gpt", "value": "the sum is 1 ."},
            "output_2": {"from": "gpt", "value": "the sum is 2 ."},
            "preference": 1 + n % 2,
            "hallucination": False,
        }
        for n, row in enumerate(pictures)
    ]
    file = root / "pairs.json"
    file.write_text(json.dumps(rows))
    result = run_cli(
        *("--algo", "scalar_rm", "--model.path", str(model), "--data.path", str(file), "--run.dir", str(root / "run")),
        *("--data.format", "llava_preference", "--data.media_root", str(data.parent), "--run.steps", "2"),
        *("--policy.train_batch_size", "8", "--optimizer.lr", "1e-3", "--optimizer.schedule", "constant"),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return root / "run" / "checkpoints" / "step_000002" / "policy"


def _arguments(model: Path, data: Path, run_dir: Path, *own: str) -> list[str]:
    return [
        *("--algo", "ppo", "--model.path", str(model), "--data.path", str(data), "--data.format", "task"),
        *("--run.dir", str(run_dir), "--run.steps", str(_STEPS), "--run.checkpoint_every", "2", "--run.seed", "5"),
        *("--reward.functions", "length?most=8", "--rollout.max_new_tokens", "8", "--rollout.engine", "transformers"),
        *("--rollout.prompts_per_step", "4", "--rollout.samples_per_prompt", "4", "--policy.train_batch_size", "8"),
        *("--optimizer.lr", "1e-3", "--optimizer.schedule", "constant", "--critic.lr", "2e-3", *own),
    ]


def _run_and_resume(model: Path, data: Path, root: Path, *own: str) -> Path:
    """A run, and the same one again from its checkpoint halfway: they must agree bit by bit. The first is returned."""
    whole, again = root / "whole", root / "again"
    result = run_cli(*_arguments(model, data, whole, *own), timeout_s=600)
    assert result.returncode == 0, result.stderr[-3000:]
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / f"step_{_STEPS:06d}")
    result = run_cli(*_arguments(model, data, again, *own, "--run.resume", "must"), timeout_s=600)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [row["step"] for row in metric_rows(again)] == list(range(_STEPS + 1))
    assert training_trace(again) == training_trace(whole)
    assert rollout_trace(again) == rollout_trace(whole)
    of_critic = [[{name: row[name] for name in _OF_CRITIC} for row in metric_rows(run)[1:]] for run in (whole, again)]
    assert of_critic[0] == of_critic[1]
    for file in _learned(whole):
        one, other = (load_file(run / file) for run in (whole, again))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one), file
    return whole


def _learned(run: Path) -> list[Path]:
    """Weights and optimizer states of policy and critic after the last step."""
    last = run / "checkpoints" / f"step_{_STEPS:06d}"
    files = [file.relative_to(run) for file in sorted(last.rglob("*.safetensors"))]
    assert {file.parts[2] for file in files} == {"policy", "state", "critic"}
    return files


def test_a_critic_begins_with_a_reward_model_and_its_head(
    model: Path, data: Path, reward_model: Path, tmp_path: Path
) -> None:
    own = ("--critic.init", "reward", "--critic.path", str(reward_model), "--critic.head", "reward_head")
    first = metric_rows(_run_and_resume(model, data, tmp_path, *own))[1]
    assert first["critic/value_mean"] != 0.0, "the head is the reward model's"


def test_a_critic_begins_with_the_reward_model_of_the_run_and_a_head_of_zeros(
    model: Path, data: Path, reward_model: Path, tmp_path: Path
) -> None:
    own = ("--critic.init", "reward", "--reward.scalar_path", str(reward_model), "--reward.functions", "scalar")
    run = _run_and_resume(model, data, tmp_path, *own)
    assert metric_rows(run)[1]["critic/value_mean"] == 0.0
    rewards = {r.reward for r in read_rollouts(run / "rollouts" / "step_000001.parquet")}
    assert len(rewards) > 1, "the reward model tells answers apart"


def test_policy_and_critic_learn_through_adapters(model: Path, data: Path, tmp_path: Path) -> None:
    run = _run_and_resume(model, data, tmp_path, "--model.lora_rank", "4", "--algorithm.kl_coef", "0.05")
    last = run / "checkpoints" / f"step_{_STEPS:06d}"
    for learned in (last / "policy", last / "critic" / "policy"):
        assert (learned / "adapter_model.safetensors").is_file()
        assert any(t.any() for name, t in load_file(learned / "adapter_model.safetensors").items() if "lora_B" in name)
    assert metric_rows(run)[-1]["critic/value_mean"] != 0.0


def test_a_critic_begins_with_fresh_weights(model: Path, data: Path, tmp_path: Path) -> None:
    run = _run_and_resume(model, data, tmp_path, "--critic.init", "random")
    name = "model.layers.0.mlp.down_proj.weight"
    begun = load_file(model / "model.safetensors")
    found = load_file(run / "checkpoints" / f"step_{_STEPS:06d}" / "critic" / "policy" / "model.safetensors")
    moved = (found[name] - begun[name]).abs().mean()
    assert moved > 0.05, "two draws of standard deviation 0.06; each of four steps moves a weight by about 0.002"
