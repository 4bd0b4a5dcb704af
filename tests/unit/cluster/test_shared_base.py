"""A shared base in the plan: no place for roles that stand on it, the memory they save, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from orchestrator.cluster.memory_told import describe_memory
from orchestrator.cluster.placement import plan_placement
from orchestrator.cluster.plan import plan_memory, role_requests
from orchestrator.cluster.resources import GIB, ClusterResources, NodeResources
from orchestrator.config import TrainConfig, load_config
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.derived import cold_start_config
from orchestrator.preflight import check_other_models
from orchestrator.tasks.digits_model import build_digits_model

_SHARE = ("--placement.share_base", "true", "--model.lora_rank", "2")
_CRITIC = ("--critic.init", "reward", "--critic.path")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("shared") / "model", seed=0)


def _config(model: Path, *flags: str) -> TrainConfig:
    argv = ("--algo", "ppo", "--model.path", str(model), "--data.path", "rows.json", "--algorithm.kl_coef", "0.1")
    config, _ = load_config([*argv, *flags])
    return config.model_copy(update={"model": config.model.model_copy(update={"dtype": "bfloat16"})})


@pytest.mark.parametrize("layout", ["colocated", "separate"])
def test_the_plan_tells_what_a_shared_base_saves(model: Path, layout: str) -> None:
    told = {}
    for shared, flags in ((False, _SHARE[2:]), (True, _SHARE)):
        config = _config(model, *flags, "--placement.layout", layout, "--policy.num_ranks", "1")
        cluster = ClusterResources(nodes=(NodeResources(name="one", cpus=8.0, gpus=4, gpu_memory_gib=80.0),))
        plan = plan_placement(cluster, role_requests(config, cluster), layout=config.placement.layout)
        roles = plan_memory(config, plan, gpu_memory_gib=80.0)
        told[shared] = plan, roles, describe_memory(roles, colocated=layout == "colocated", gpu_memory_gib=80.0)
    (apart, models, _), (together, adapters, lines) = told[False], told[True]
    assert {w.role for w in apart.workers} == {"policy", "critic", "reference", "rollout"}
    assert {w.role for w in together.workers} == {"policy", "rollout"}
    assert adapters.keys() == models.keys() and adapters["policy"] == models["policy"]
    base = adapters["critic"].shares
    assert adapters["reference"].shares == base > 0.5 * models["policy"].gpu["weights"]
    # What is left of the weights is the critic's adapter: rank times inputs and outputs of every layer, in two bytes.
    assert adapters["critic"].gpu["adapter"] == models["critic"].gpu["weights"] - base < 0.3 * base
    assert adapters["reference"].gpu["adapter"] == 0.0
    for name in ("critic", "reference"):
        assert models[name].resident - adapters[name].resident == base
        assert any(line.startswith(f"memory of {name} in a policy worker: adapter 0.0 + ") for line in lines)
    saved = f"{base / GIB:.1f} GiB of weights for"
    assert (
        f"shared base: every policy worker saves {saved} critic; {saved} reference, {2 * base / GIB:.1f} GiB in all"
        in lines
    )
    # They take turns in one process, whichever the layout is: the others' memory stays.
    turn = sum(adapters["critic"].gpu.values()) + adapters["policy"].resident + adapters["reference"].resident
    turn += adapters["rollout"].resident if layout == "colocated" else 0.0
    assert f"GPU in the critic's turn: {turn / GIB:.1f} of 80 GiB, fits" in lines


def test_what_cannot_share_a_base_is_refused(model: Path, tmp_path: Path) -> None:
    for flags, said in (
        (_SHARE[:2], "placement.share_base = true needs model.lora_rank, which is not set"),
        ((*_SHARE, "--policy.zero_stage", "3"), "needs policy.zero_stage below 3, which leaves the base whole"),
        ((*_SHARE, "--reference.num_ranks", "2"), "reference.num_ranks = 2 has no meaning with placement.share_base"),
    ):
        with pytest.raises(RefusedInput, match=said):
            _config(model, *flags)
    other = build_digits_model(tmp_path / "other", seed=1)
    adapter = _adapter(tmp_path / "adapter", base=other)
    for flags, said in (
        (
            (*_CRITIC, str(other)),
            r"critic\.path .*other' is a model of its own, not an adapter of model\.path",
        ),
        (
            (*_CRITIC, str(adapter)),
            r"critic\.path .* is an adapter of .*other', not an adapter of model\.path",
        ),
        (
            ("--reward.functions", "scalar", "--reward.scalar_path", str(_adapter(tmp_path / "rm", base=other))),
            r"reward\.scalar_path .* is an adapter of .*, whose base placement\.share_base = true shares",
        ),
    ):
        config = _config(model, *_SHARE, *flags)
        with pytest.raises(RefusedInput, match=said):
            check_other_models(config, config)
        if flags[0] == "--critic.init":
            config = _config(model, *_SHARE[2:], *flags)
            check_other_models(config, config)
    config = _config(model, *_SHARE, *_CRITIC, str(_adapter(tmp_path / "own", base=model)))
    check_other_models(config, config)


def test_a_cold_start_before_an_embedded_run_shares_nothing() -> None:
    config, _ = load_config(["--algo", "ppo", *_SHARE])
    cold = cold_start_config(config)
    assert config.placement.share_base and not cold.placement.share_base and cold.model.lora_rank is None


def _adapter(folder: Path, *, base: Path) -> Path:
    folder.mkdir()
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    save_file({"lora_A.weight": np.zeros((2, 3), np.float32)}, folder / "adapter_model.safetensors")
    return folder
