"""A frozen tower that sees an image once changes no score and no gradient, and a trained one sees it every time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from algorithms.records import Sequence
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import MIXED_SIZES, picture_prompts, respond
from workers.models.adapters import ADAPTERS
from workers.models.loading import ModelSpec, freeze_modules, load_model
from workers.models.policy_module import PolicyModule
from workers.models.vision_features import FeatureCache, keep_features
from workers.multimodal.collate import Batch, Collator
from workers.multimodal.prompt_encoder import PromptEncoder

_IMAGES = {"two": 2, "one": 1, "none": 0}


@pytest.fixture(scope="module", params=TINY_MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def sequences(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sequence]:
    """Three prompts with as many images as their names say, of several sizes; two answers to the first."""
    encoder = PromptEncoder(folder)
    prompts = picture_prompts(tmp_path_factory.mktemp("noise"), _IMAGES, sizes=MIXED_SIZES)
    answers = [respond(encoder, prompt, np.array([9, 8, 7])) for prompt in prompts]
    return [respond(encoder, prompts[0], np.array([8, 9]), sample_index=1), *answers]


def _module(folder: Path, *freeze: str, keep: bool, exact: bool = False) -> tuple[PolicyModule, FeatureCache | None]:
    model, adapter = load_model(ModelSpec(path=str(folder), dtype="float32"))
    if exact:
        model.double()
        model.set_experts_implementation("eager")  # the grouped product knows no double precision
    freeze_modules(model, adapter, freeze)
    module = PolicyModule(model, lockstep=False)
    return module, keep_features(module, adapter) if keep else None


def _collate(folder: Path, sequences: list[Sequence], *, dtype: torch.dtype = torch.float32) -> Batch:
    return Collator(folder, dtype=dtype, share_prompts=False)(sequences)


def _learned(module: PolicyModule, batch: Batch) -> dict[str, torch.Tensor]:
    module.zero_grad()
    logprobs, *_ = module(batch)
    logprobs.sum().backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    return gradients | {"logprobs": logprobs.detach()}


def _count(module: PolicyModule, model_type: str) -> list[int]:
    """How many rows a tower was given, each time that it ran."""
    record = ADAPTERS[model_type].tower
    assert record is not None
    tower: Any = module.model.get_submodule(record.path)
    first = next(m for m in tower.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear))
    runs: list[int] = []
    first.register_forward_hook(lambda module, args, output: runs.append(len(args[0])))
    return runs


def test_scores_and_gradients_are_those_of_a_tower_that_runs_in_every_forward(
    folder: Path, sequences: list[Sequence]
) -> None:
    # In double precision: what order a processor adds in is then no part of the difference.
    plain, _ = _module(folder, "vision", keep=False, exact=True)
    kept, cache = _module(folder, "vision", keep=True, exact=True)
    assert cache is not None and len(cache) == 0
    runs = _count(kept, kept.model.config.model_type)
    # What is kept of one batch serves others.
    for some in (sequences[1:2], sequences, sequences[::-1]):
        batch = _collate(folder, some, dtype=torch.float64)
        torch.testing.assert_close(_learned(kept, batch), _learned(plain, batch), atol=1e-6, rtol=1e-5)
    assert len(runs) == len(cache) == sum(_IMAGES.values())
    assert any(
        name.startswith("model.") and ADAPTERS[plain.model.config.model_type].module_of(name[6:]) == "bridge"
        for name in _learned(kept, _collate(folder, sequences, dtype=torch.float64))
    )


def test_an_image_has_the_same_features_whatever_is_kept(folder: Path, sequences: list[Sequence]) -> None:
    module, cache = _module(folder, "vision", keep=True)
    assert cache is not None
    batch = _collate(folder, sequences)
    at_once = _learned(module, batch)
    cache.clear()
    module(_collate(folder, sequences[2:]))
    found = _learned(module, batch)
    assert all(torch.equal(found[name], value) for name, value in at_once.items())


def test_an_image_tiled_alone_and_one_beside_others_are_two(tmp_path: Path) -> None:
    folder = TINY_MODELS["llava_onevision"](tmp_path / "model")
    encoder = PromptEncoder(folder)
    (two,) = picture_prompts(tmp_path, {"two": 2}, sizes=MIXED_SIZES[1:2])
    one = replace(
        two, uid="one", messages=picture_prompts(tmp_path / "..", {"one": 1})[0].messages, media=two.media[:1]
    )
    module, cache = _module(folder, "vision", keep=True)
    plain, _ = _module(folder, "vision", keep=False)
    assert cache is not None
    batch = _collate(folder, [respond(encoder, prompt, np.array([9, 8, 7])) for prompt in (one, two)])
    torch.testing.assert_close(module(batch)[0], plain(batch)[0], atol=1e-6, rtol=1e-5)
    assert len(cache) == 3 and len({image.rows for image in batch.images}) == 2
