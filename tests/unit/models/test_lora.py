"""Adapters go where they may, change nothing at first, and merge to the model that was trained."""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from algorithms.records import Sequence
from orchestrator.export import main
from orchestrator.tasks.digits import build_digits_data
from tests.tiny_models import TINY_MODELS
from workers.models.adapters import ModelAdapter, adapter_for
from workers.models.folder import check_model_folder, read_model_config
from workers.models.loading import ModelSpec, kept_buffers, load_model, released_tensors
from workers.models.lora import (
    LoraSpec,
    adapter_tensors,
    add_adapters,
    full_path_pattern,
    load_adapter,
    lora_layers,
    merged,
    plain_parameters,
    save_adapter,
    wear_adapter,
    without_adapters,
)
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Batch, Collator
from workers.multimodal.media import probe_image
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

_SPEC = LoraSpec(rank=4, alpha=8, seed=3)
_PARTS = ("vision", "bridge", "language")


@dataclass(frozen=True)
class Trained:
    """A policy after a step on its adapters, with the vision tower frozen, and what its base said before."""

    module: PolicyModule
    architecture: ModelAdapter
    batch: Batch
    base_logprobs: Tensor
    base_weights: dict[str, Tensor]


@pytest.fixture(scope="module", params=[name for name in TINY_MODELS if adapter_for(name).lora])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = build_digits_data(tmp_path_factory.mktemp("digits"), seed=0)
    return min((data.train.parent / "images").glob("*.png"))


@pytest.fixture(scope="module")
def batch(folder: Path, image: Path) -> Batch:
    """Two responses to a question about an image, in one row."""
    media = (probe_image(image, max_pixels=10**6),)
    content = [{"type": "image"}, {"type": "text", "text": "which ?"}]
    prompt = Prompt(uid="one", messages=({"role": "user", "content": content},), media=media)
    ids = np.asarray(PromptEncoder(folder).encode(prompt).prompt_ids)
    sequences = [
        Sequence(
            uid="one",
            sample_index=index,
            input_ids=np.concatenate([ids, np.arange(9, 9 + length)]),
            prompt_len=len(ids),
            media=media,
        )
        for index, length in enumerate((6, 3))
    ]
    return Collator(folder, dtype=torch.float32, share_prompts=_shares(folder))(sequences)


@pytest.fixture(scope="module")
def trained(folder: Path, batch: Batch) -> Trained:
    model, architecture = _load(folder)
    base_weights = {name: t.detach().clone() for name, t in (*model.named_parameters(), *kept_buffers(model))}
    module = PolicyModule(model, lockstep=False)
    with torch.no_grad():
        base_logprobs, *_ = module(batch)
    add_adapters(model, architecture, _SPEC, ("vision",))
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):  # B is zero before the first, so A moves only in the second
        module(batch)[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return Trained(module, architecture, batch, base_logprobs, base_weights)


def _load(folder: Path) -> tuple[Any, ModelAdapter]:
    return load_model(ModelSpec(path=str(folder), dtype="float32", share_prompts=_shares(folder)))


def _shares(folder: Path) -> bool:
    return adapter_for(str(read_model_config(folder)["model_type"])).shares_prompts


def _alone(_: object) -> nullcontext[None]:
    return nullcontext()


def _checkpoint(trained: Trained, folder: Path, run: Path) -> Path:
    checkpoint = run / "checkpoints" / "step_000001"
    model = trained.module.model
    save_adapter(model, adapter_tensors(model, _alone), checkpoint / "policy", source=str(folder))
    (checkpoint / "manifest.json").write_text("{}")
    return checkpoint


@pytest.mark.parametrize("freeze", [(), ("vision",), ("vision", "bridge"), ("language",)], ids=str)
def test_only_parts_that_are_not_frozen_get_adapters(folder: Path, freeze: tuple[str, ...]) -> None:
    """VL-RLHF acceptance 2."""
    model, architecture = _load(folder)
    add_adapters(model, architecture, _SPEC, freeze)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    linear = set(_PARTS) - ({"bridge"} if architecture.model_type == "gemma3" else set())
    assert {architecture.module_of(name) for name in names} == linear - set(freeze)
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    assert not any("lm_head" in name for name in names)
    tower = [n for n in names if "vision_tower" in n or "vision_model" in n or ("visual" in n and "merger" not in n)]
    assert bool(tower) == ("vision" not in freeze)


def test_an_adapter_starts_as_nothing(folder: Path, batch: Batch) -> None:
    model, architecture = _load(folder)
    module = PolicyModule(model, lockstep=False)
    with torch.no_grad():
        before, *_ = module(batch)
        add_adapters(model, architecture, _SPEC, ())
        after, *_ = module(batch)
    assert torch.equal(before, after)


def test_after_training_the_base_alone_answers_as_before(trained: Trained) -> None:
    with torch.no_grad():
        with without_adapters(trained.module):
            alone, *_ = trained.module(trained.batch)
        together, *_ = trained.module(trained.batch)
    assert torch.equal(alone, trained.base_logprobs)
    assert float((together - alone).abs().max()) > 0.1


def test_merged_weights_are_pefts_and_leave_the_base_alone(trained: Trained, folder: Path, tmp_path: Path) -> None:
    plain = list(plain_parameters(trained.module.model, _alone, scale=_SPEC.scale))
    checkpoint = _checkpoint(trained, folder, tmp_path)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    by_peft: nn.Module = PeftModel.from_pretrained(model, str(checkpoint / "policy")).merge_and_unload()  # type: ignore[operator]
    expected = dict((*by_peft.named_parameters(), *kept_buffers(by_peft)))
    assert [name for name, _, _ in plain] == list(expected)
    for name, tensor, touched in plain:
        torch.testing.assert_close(tensor, expected[name].detach(), atol=1e-6, rtol=0)
        assert touched or torch.equal(tensor, trained.base_weights[name]), name
    # A Q-Former's last layer has parts that no answer depends on: they may be trained, and do not change.
    changed = [name for name, tensor, _ in plain if not torch.equal(tensor, trained.base_weights[name])]
    assert len(changed) > 0.8 * sum(touched for _, _, touched in plain)
    model = trained.module.model
    now = {name.replace(".base_layer.", "."): t for name, t in (*model.named_parameters(), *kept_buffers(model))}
    assert all(torch.equal(now[name], weight) for name, weight in trained.base_weights.items())


def test_a_saved_adapter_is_restored_to_the_bit(trained: Trained, folder: Path, tmp_path: Path) -> None:
    policy = _checkpoint(trained, folder, tmp_path) / "policy"
    assert sorted(file.name for file in policy.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert json.loads((policy / "adapter_config.json").read_text())["base_model_name_or_path"] == str(folder)
    model, architecture = _load(folder)
    add_adapters(model, architecture, LoraSpec(rank=4, alpha=8, seed=0, saved=str(policy)), ("vision",))
    with torch.no_grad():
        again, *_ = PolicyModule(model, lockstep=False)(trained.batch)
        wanted, *_ = trained.module(trained.batch)
    assert torch.equal(again, wanted)
    for name, tensor in adapter_tensors(model, _alone).items():
        assert torch.equal(tensor, adapter_tensors(trained.module.model, _alone)[name])


def test_a_narrower_base_wears_an_adapter_unrounded(trained: Trained, folder: Path, tmp_path: Path) -> None:
    policy = _checkpoint(trained, folder, tmp_path) / "policy"
    model, _ = load_model(ModelSpec(path=str(folder), dtype="bfloat16"))
    assert wear_adapter(model, policy) == _SPEC.scale
    wanted = adapter_tensors(trained.module.model, _alone)
    for name, tensor in adapter_tensors(model, _alone).items():
        assert torch.equal(tensor, wanted[name])


def test_an_adapter_of_other_parts_is_refused(trained: Trained, folder: Path, tmp_path: Path) -> None:
    policy = _checkpoint(trained, folder, tmp_path) / "policy"
    model, architecture = _load(folder)
    with pytest.raises(ValueError, match=r"other adapters than model\.lora_rank and model\.freeze"):
        add_adapters(model, architecture, LoraSpec(rank=4, alpha=8, seed=0, saved=str(policy)), ())


def test_the_exported_model_scores_as_the_policy_did(trained: Trained, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _checkpoint(trained, folder, run)
    assert main([str(run), str(tmp_path / "model")]) == 0
    check_model_folder(tmp_path / "model")
    source, written = (json.loads((f / "config.json").read_text()) for f in (folder, tmp_path / "model"))
    assert written["architectures"] == source["architectures"]
    names = released_tensors(_load(folder)[0], trained.architecture).keys()
    assert load_file(tmp_path / "model" / "model.safetensors").keys() == names
    with torch.no_grad():
        exported, *_ = PolicyModule(_load(tmp_path / "model")[0], lockstep=False)(trained.batch)
        wanted, *_ = trained.module(trained.batch)
    torch.testing.assert_close(exported, wanted, atol=1e-5, rtol=0)


def test_a_seed_gives_one_start_and_leaves_other_randomness_alone(folder: Path) -> None:
    def start(seed: int) -> dict[str, Tensor]:
        model, architecture = _load(folder)  # which may draw numbers
        torch.manual_seed(11)
        add_adapters(model, architecture, LoraSpec(rank=2, alpha=4, seed=seed), ("vision",))
        drawn = torch.rand(1)
        torch.manual_seed(11)
        assert torch.equal(torch.rand(1), drawn)
        return adapter_tensors(model, _alone)

    first, again, other = start(seed=5), start(seed=5), start(seed=6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_bfloat16_base_has_bfloat16_adapters(folder: Path) -> None:
    model, architecture = load_model(ModelSpec(path=str(folder), dtype="bfloat16"))
    add_adapters(model, architecture, _SPEC, ())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_merged_weight_is_rounded_once() -> None:
    # Between bfloat16's 1 and 1.0078125 lies 1 + 2⁻⁸, which rounds to the even 1. The product 2⁻⁸ + 2⁻¹⁷ is above it
    # by less than bfloat16 could tell.
    weight, a = torch.ones(1, 1, dtype=torch.bfloat16), torch.ones(2, 1, dtype=torch.bfloat16)
    b = torch.tensor([[2.0**-9, 2.0**-18]], dtype=torch.bfloat16)
    assert merged(weight, a, b, scale=2.0).tolist() == [[1.0078125]]


def test_a_pattern_names_whole_paths_and_forgets_layer_numbers() -> None:
    names = ["tower.layers.0.q_proj", "tower.layers.1.q_proj", "text.layers.0.q_proj", "text.layers.1.q_proj", "mlp.0"]
    assert full_path_pattern(names[2:], names) == r"mlp\.0|text\.layers\.\d+\.q_proj"


def test_a_pattern_that_would_select_too_much_is_spelled_out() -> None:
    names = ["blocks.0.up", "blocks.1.up", "blocks.2.up"]
    assert full_path_pattern(names[:2], names) == r"blocks\.0\.up|blocks\.1\.up"


def test_an_attention_of_torchs_own_and_the_head_are_left_alone() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 1), "up": nn.Linear(4, 4), "lm_head": nn.Linear(4, 9)})
    assert list(lora_layers(model, adapter_for("llava"), ())) == ["up"]


def test_frozen_parts_that_leave_no_linear_layer_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.freeze = \['language'\] leaves no linear layer"):
        lora_layers(nn.ModuleDict({"up": nn.Linear(4, 4)}), adapter_for("llava"), ("language",))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no adapter_model\.safetensors"):
        load_adapter(nn.Linear(2, 2), tmp_path)
