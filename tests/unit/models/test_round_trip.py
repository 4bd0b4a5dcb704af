"""Every native architecture scores, learns, is written and read again as transformers itself would have it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForImageTextToText

from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import MIXED_SIZES, picture_prompts, respond
from workers.models.adapters import MODULES, ModelAdapter
from workers.models.export import export_folder
from workers.models.loading import ModelSpec, load_model, released_tensors
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Batch, Collator
from workers.multimodal.prompt_encoder import PromptEncoder


@pytest.fixture(scope="module", params=TINY_MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def batch(folder: Path, pictures: Path) -> Batch:
    return _batch(folder, pictures)


def _batch(folder: Path, pictures: Path) -> Batch:
    encoder, rng = PromptEncoder(folder), np.random.default_rng(0)
    prompts = picture_prompts(pictures, {"two": 2, "one": 1, "none": 0}, sizes=MIXED_SIZES)
    sequences = [respond(encoder, prompt, rng.integers(8, 30, 5 + i)) for i, prompt in enumerate(prompts)]
    return Collator(folder, dtype=torch.float32, share_prompts=False)(sequences)


def _load(folder: Path) -> tuple[PolicyModule, ModelAdapter]:
    model, adapter = load_model(ModelSpec(path=str(folder), dtype="float32"))
    return PolicyModule(model, lockstep=False), adapter


def _names(folder: Path) -> set[str]:
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names |= set(tensors.keys())
    return names


def _short(names: set[str]) -> set[str]:
    return {name.replace("vision_tower.vision_model.", "vision_tower.") for name in names}


def _trained(folder: Path, batch: Batch) -> tuple[PolicyModule, ModelAdapter]:
    module, adapter = _load(folder)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    before, *_ = module(batch)
    (-before.mean()).backward()
    optimizer.step()
    after, *_ = module(batch)
    assert float(after.detach().mean()) > float(before.detach().mean()) + 1e-2
    return module, adapter


def _export(module: PolicyModule, adapter: ModelAdapter, source: Path, target: Path) -> Path:
    tensors = released_tensors(module.model, adapter)
    export_folder({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, source=source, target=target)
    return target


def test_scores_are_those_of_the_models_own_forward(folder: Path, batch: Batch) -> None:
    module, _ = _load(folder)
    found, *_ = module(batch)
    out = module.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), **batch.mm_inputs)
    logits: Tensor = out.logits.flatten(0, 1)[batch.predictors].float()
    wanted = logits.log_softmax(-1).gather(-1, batch.targets[:, None]).squeeze(-1)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_trained_model_is_read_again_as_it_was(folder: Path, batch: Batch, pictures: Path, tmp_path: Path) -> None:
    module, adapter = _trained(folder, batch)
    exported = _export(module, adapter, folder, tmp_path / "exported")
    with torch.no_grad():
        wanted, *_ = module(batch)
        # Prompts and images are prepared from what was exported, too.
        found, *_ = _load(exported)[0](_batch(exported, pictures))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_the_names_on_disk_are_those_transformers_writes(folder: Path, batch: Batch, tmp_path: Path) -> None:
    module, adapter = _trained(folder, batch)
    exported = _export(module, adapter, folder, tmp_path / "exported")
    loaded: Any = AutoModelForImageTextToText.from_pretrained(exported, output_loading_info=True)
    model, report = loaded
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    model.save_pretrained(tmp_path / "saved")
    assert _names(exported) == _names(tmp_path / "saved")
    # What transformers writes for a model that it has not read lacks a level, which the releases have.
    assert _short(_names(exported)) == _short(_names(folder))


def test_every_part_has_parameters_and_every_parameter_a_part(folder: Path) -> None:
    module, adapter = _load(folder)
    parts = {name: adapter.module_of(name) for name, _ in module.model.named_parameters()}
    assert set(parts.values()) == set(MODULES)
    told = {
        "vision": ("vision", "visual"),
        "bridge": ("projector", "merger", "newline", "qformer", "query", "projection", "connector", "embed_vision"),
    }
    for name, part in parts.items():
        if part == "language":
            assert "language_model" in name or "text_model" in name or name == "lm_head.weight"
        else:
            assert any(word in name for word in told[part])
