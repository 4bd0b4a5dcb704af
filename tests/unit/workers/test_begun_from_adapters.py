"""Runs that begin with saved adapters: frozen roles wear them as they were trained, ranks go on from them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from algorithms.algorithm import ScalarHead
from algorithms.records import Sequence
from orchestrator.cluster.memory_plan import MemoryQuestion, of_reference, of_scalar_reward
from orchestrator.cluster.specs import critic_spec, model_spec, policy_spec, reference_spec
from orchestrator.config import TrainConfig, load_config
from orchestrator.data.side_tables import table_fingerprint
from orchestrator.errors import RefusedInput
from orchestrator.preflight import check_other_models
from orchestrator.run.identity import run_identity
from tests.learned_adapters import LORA, learned_adapter, rank, rank_spec
from tests.tiny_prompts import picture_prompts, respond
from tests.user_files import write_llava
from workers.models.adapter_folder import base_folder, same_base
from workers.models.loading import ModelSpec
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.policy import PolicyWorker
from workers.reference import ReferenceWorker
from workers.scalar_reward import ScalarRewardSpec, ScalarRewardWorker

pytestmark = pytest.mark.usefixtures("one_rank")
_FLAGS = ("--model.lora_rank", "4", "--model.freeze", "vision")
_CRITIC = ("--critic.init", "reward", "--critic.path")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava") / "model")


@pytest.fixture(scope="module")
def sequences(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sequence]:
    encoder, rng = PromptEncoder(base), np.random.default_rng(0)
    prompts = picture_prompts(tmp_path_factory.mktemp("pictures"), {"picture": 1, "text": 0})
    return [respond(encoder, p, rng.integers(8, 30, 4 + k), sample_index=k) for p in prompts for k in range(2)]


@pytest.fixture(scope="module")
def trained(
    base: Path, sequences: list[Sequence], tmp_path_factory: pytest.TempPathFactory
) -> tuple[PolicyWorker, str]:
    """A policy that has learned through an adapter, and the adapter's folder, with a scalar head beside it."""
    folder = tmp_path_factory.mktemp("trained")
    return learned_adapter(base, sequences, folder), str(folder / "policy")


def test_frozen_roles_wear_an_adapter_as_it_was_trained(
    base: Path, sequences: list[Sequence], trained: tuple[PolicyWorker, str]
) -> None:
    policy, adapter = trained
    model = ModelSpec(path=str(base), dtype="float32", share_prompts=True, adapter=adapter)
    reference = ReferenceWorker(spec=model, num_threads=1)
    alone = ReferenceWorker(spec=replace(model, adapter=None), num_threads=1)
    wanted, found, without = (one.score([sequences]) for one in (policy, reference, alone))
    assert all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert max(float(np.abs(a - b).max()) for a, b in zip(wanted, without, strict=True)) > 1e-2
    rewarding = rank(replace(rank_spec(base), head=ScalarHead(), lora=replace(LORA, saved=adapter)))
    frozen = ScalarRewardWorker(spec=ScalarRewardSpec(model=model), num_threads=1, name="scalar_reward-0")
    assert frozen.rewards([sequences]) == rewarding.rewards([sequences]) and len(set(frozen.rewards([sequences]))) > 1


def _config(base: Path, *flags: str) -> TrainConfig:
    config, _ = load_config(["--algo", "ppo", "--model.path", str(base), "--data.path", "rows.json", *flags])
    return config.model_copy(update={"model": config.model.model_copy(update={"dtype": "float32"})})


def _reward_flags(adapter: str) -> tuple[str, ...]:
    return ("--reward.functions", "scalar", "--reward.scalar_path", adapter)


def test_a_run_begins_with_the_adapters_that_it_is_given(base: Path, trained: tuple[PolicyWorker, str]) -> None:
    adapter, own = trained[1], str(base)
    config = _config(
        base,
        *_FLAGS,
        "--model.adapter",
        adapter,
        "--critic.init",
        "reward",
        "--critic.path",
        adapter,
        *_reward_flags(adapter),
    )
    check_other_models(config, config)
    policy, critic = policy_spec(config, None), critic_spec(config, None)
    assert policy.lora is not None and critic.lora is not None
    assert (policy.model.path, policy.model.adapter, policy.lora.saved) == (own, None, adapter)
    assert (critic.model.path, critic.model.adapter, critic.source, critic.lora.saved) == (own, None, own, adapter)
    assert (reference_spec(config).path, reference_spec(config).adapter) == (own, adapter)
    assert model_spec(config, adapter) == replace(model_spec(config, own), adapter=adapter)
    # The critic of a run that names no other model begins as the policy does; a checkpoint goes before either.
    critic = critic_spec(_config(base, *_FLAGS, "--model.adapter", adapter), None)
    assert critic.lora is not None and critic.lora.saved == adapter
    again = [policy_spec(config, "kept").lora, critic_spec(config, "kept").lora]
    assert [lora.saved for lora in again if lora is not None] == ["kept", "kept"]
    headed = _config(base, *_FLAGS, *_CRITIC, adapter, "--critic.head", "reward_head")
    check_other_models(headed, headed)
    assert critic_spec(headed, None).head_in == adapter


def test_an_adapter_counts_in_what_a_run_is_and_in_its_memory(
    base: Path, trained: tuple[PolicyWorker, str], tmp_path: Path
) -> None:
    adapter = trained[1]
    moved = shutil.copytree(adapter, tmp_path / "moved")
    plain, begun, elsewhere = (
        _config(base, *_FLAGS, *more) for more in ((), *(("--model.adapter", str(a)) for a in (adapter, moved)))
    )
    told = [run_identity(c, rows="", held_out=None)["model.adapter"] for c in (plain, begun, elsewhere)]
    assert told[0] is None and told[1]["weights"] == told[2]["weights"] and told[1]["base's weights"]
    tables = [table_fingerprint(c, "", str(base), adapter=c.model.adapter) for c in (plain, begun, elsewhere)]
    assert tables[0] != tables[1] == tables[2]
    whole, worn = (of_reference(MemoryQuestion(config=c, gpu_memory_gib=None)).resident for c in (plain, begun))
    rewarding = MemoryQuestion(config=_config(base, *_FLAGS, *_reward_flags(adapter)), gpu_memory_gib=None)
    assert 0 < worn - whole < 0.2 * whole and of_scalar_reward(rewarding).resident == worn


def test_adapters_that_do_not_fit_are_refused(base: Path, trained: tuple[PolicyWorker, str], tmp_path: Path) -> None:
    adapter, other = trained[1], write_llava(tmp_path / "other")
    begun = ("--model.adapter", adapter)
    for flags, said in (
        ((*_FLAGS[2:], *begun), "model.adapter = .* needs model.lora_rank, which is not set"),
        (
            (*_FLAGS, *begun, "--reference.mode", "lora_off"),
            "asks the base alone, but the run begins with model.adapter",
        ),
    ):
        with pytest.raises(RefusedInput, match=said):
            _config(base, *flags)
    strange = shutil.copytree(adapter, tmp_path / "strange")
    told = json.loads((strange / "adapter_config.json").read_text())
    (strange / "adapter_config.json").write_text(json.dumps({**told, "base_model_name_or_path": str(tmp_path / "no")}))
    for model, flags, said in (
        (base, ("--model.lora_rank", "8", *begun), r"holds an adapter of r = 4, but model\.lora_rank is 8"),
        (base, (*_FLAGS, *begun, "--model.lora_alpha", "9"), r"of lora_alpha = 8, but model\.lora_alpha is 9"),
        (base, (*_FLAGS, "--model.adapter", str(base)), r"model\.adapter .* holds no adapter alone"),
        (
            base,
            (*_FLAGS, "--model.adapter", str(strange)),
            r"model\.adapter .* is an adapter of '.*no', not an adapter of model\.path",
        ),
        (
            base,
            (*_CRITIC, adapter),
            r"critic\.path .* is an adapter, and model\.lora_rank is not set",
        ),
        (base, (*_FLAGS, *_reward_flags(str(strange))), r"reward\.scalar_path: '.*no' is not a folder"),
    ):
        config = _config(model, *flags)
        with pytest.raises(RefusedInput, match=said):
            check_other_models(config, config)
    assert base_folder(adapter) == str(base.resolve()) and base_folder(str(base)) == str(base)
    assert same_base(adapter, str(other)), "the same bytes elsewhere are the same base"
