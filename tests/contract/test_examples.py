"""The examples load, fit the clusters they were written for, and say so."""

import re
import tomllib
from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.config.load import load_runs
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main
from workers.models.reward_head import RewardHead, save_reward_head

_EXAMPLES = Path(__file__).parents[2] / "examples"
_R1 = _EXAMPLES / "r1_reward_7b"


@pytest.mark.parametrize("size", ["one", "four"])
def test_the_r1_recipe_fits_its_cluster(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    machine = {"one": "one_node.toml", "four": "four_nodes.toml"}[size]
    arguments = [
        *("--dry-run", "--algo", "stable_reinforce", "--config", str(_R1 / "recipe.toml"), str(_R1 / machine)),
        *("--placement.cluster", str(_R1 / f"cluster_{size}.toml"), "--model.path", str(_R1 / "qwen2_5_vl_7b")),
        *("--data.path", "r1_reward_rl.jsonl"),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "256 prompts x 1 samples = 256 completions" in printed
    assert "256 / 128 = 2 optimizer steps" in printed
    turns = re.findall(r"GPU in the \S+ turn: ([0-9.]+) of 80 GiB, (.*)", printed)
    assert len(turns) == 2
    assert {verdict for _, verdict in turns} == {"fits"}


def test_the_r1_recipe_is_as_long_as_the_papers_epochs_over_the_released_pairs() -> None:
    arguments = ["--model.path", "model", "--data.path", "data"]
    config, _ = load_config(["--config", str(_R1 / "recipe.toml"), *arguments])
    assert config.rollout.prompts_per_step == config.samples_per_step == 256
    assert config.run.steps == 17_261 * 5 // 256
    cold_start, _ = load_config(["--config", str(_R1 / "sft.toml"), *arguments])
    assert abs(cold_start.run.steps - 200_000 / cold_start.policy.train_batch_size) < 2
    readme = (_R1 / "README.md").read_text()
    assert f"= {config.run.steps} rollouts" in readme
    assert f"step_{cold_start.run.steps:06d}" in readme


def test_the_llava_rlhf_recipe_fits_eight_gpus_with_four_adapters_on_one_base(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = _EXAMPLES / "llava_rlhf_7b"
    arguments = [
        *("--dry-run", "--config", str(folder / "pipeline.toml"), "--placement.cluster", str(folder / "cluster.toml")),
        *("--model.path", str(folder / "llava_1_5_7b")),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "run 3 of 3, policy: fact_ppo" in printed and "model.adapter from rl_init" in printed
    assert "512 / 256 = 2 optimizer steps" in printed
    turns = re.findall(r"GPU in the \S+ turn: ([0-9.]+) of 80 GiB, (.*)", printed)
    assert len(turns) == 7 and {verdict for _, verdict in turns} == {"fits"}
    saved = re.search(r"shared base: every policy worker saves .*, ([0-9.]+) GiB in all", printed)
    assert saved is not None and float(saved[1]) > 39, "three times the weights of 7B in bfloat16"
    steps = tomllib.loads((folder / "pipeline.toml").read_text())["stage"][2]["run"]["steps"]
    assert steps == 4 * 72_000 // 512


def test_a_run_without_rollouts_plans_none(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        *("--dry-run", "--algo", "dpo", "--placement.cluster", str(_R1 / "cluster_one.toml")),
        *("--model.path", str(_R1 / "qwen2_5_vl_7b"), "--data.path", "d.jsonl", "--data.format", "plain_dpo"),
        *("--policy.num_ranks", "8", "--policy.zero_stage", "3"),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "128 instructions with all their responses, on 8 ranks" in printed
    assert "reference 0" in printed and "memory of one reference worker" in printed
    assert "rollout 0" not in printed and "rollout worker" not in printed


def test_a_critique_reward_model_beside_the_policy_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    critique_model = build_digits_model(tmp_path / "critique_model", seed=0)
    save_reward_head(
        "linear", dict(RewardHead("linear", 128).named_parameters()), critique_model, request="is it right ?"
    )
    arguments = [
        *("--dry-run", "--algo", "stable_reinforce", "--config", str(_R1 / "recipe.toml"), str(_R1 / "one_node.toml")),
        *("--placement.cluster", str(_R1 / "cluster_one.toml"), "--model.path", str(_R1 / "qwen2_5_vl_7b")),
        *("--data.path", "r1.jsonl", "--reward.critique.path", str(critique_model), "--reward.critique.weight", "0.5"),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert (
        "memory of one critique_reward worker: weights 0.0 + engine's weights 0.0 + engine's cache and activations"
        in printed
    )
    # Its engine does not sleep while the policy's has.
    assert re.search(r"GPU in the rollout's turn: .*, DOES NOT FIT", printed)


def test_the_described_model_has_the_size_of_its_name() -> None:
    from orchestrator.cluster.memory_plan import model_shape

    # The released checkpoint holds 8,292,166,656 parameters.
    assert model_shape(str(_R1 / "qwen2_5_vl_7b"), ()).num_params == 8_292_166_656


def test_every_example_configuration_loads() -> None:
    for file in _EXAMPLES.rglob("*.toml"):
        if "cluster" in file.name:
            continue
        says = tomllib.loads(file.read_text())
        algo = [] if "algo" in says else ["--algo", "sft" if file.name == "sft.toml" else "stable_reinforce"]
        own = ["--model.path", "model", "--data.path", "data"] if "task" not in says else []
        load_runs([*([*algo, *own] if "stage" not in says else ()), "--config", str(file)])
