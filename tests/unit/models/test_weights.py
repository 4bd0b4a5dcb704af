"""Weights that are not all there are refused: transformers would make up the rest."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.tiny_models import TINY_MODELS
from workers.models.folder import check_model_folder
from workers.models.loading import ModelSpec, load_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return TINY_MODELS["qwen2_5_vl"](tmp_path / "model")


def _without_one_tensor(folder: Path) -> str:
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return name


def test_a_model_with_made_up_tensors_is_not_loaded(folder: Path) -> None:
    load_model(ModelSpec(path=str(folder)))
    _without_one_tensor(folder)
    with pytest.raises(ValueError, match=r"lacks [12] of the model's tensors; the first is "):
        load_model(ModelSpec(path=str(folder)))


def test_a_shard_without_what_the_index_says_it_has_is_refused(folder: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    names = dict.fromkeys(load_file(folder / "model.safetensors"), shard)
    missing = _without_one_tensor(folder)
    (folder / "model.safetensors").rename(folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ValueError, match=rf"lacks '{missing}', one of 1 tensors the index says it has"):
        check_model_folder(folder)


def test_a_file_that_the_index_names_is_inside_the_folder(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    index = {"weight_map": {"a": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="which the index names, is not there"):
        check_model_folder(folder)


def test_quantised_weights_may_be_asked_but_not_trained(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    (folder / "config.json").write_text(json.dumps(config))
    check_model_folder(folder, trained=False)
    with pytest.raises(ValueError, match=r"is quantised \(gptq\)"):
        check_model_folder(folder)
