"""A reward model rewritten for others to serve: what is added, what stays, and which folders are left alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.user_files import write_llava
from workers.models.classifier import as_classifier
from workers.models.folder import check_model_folder, gives_rewards_alone
from workers.models.loading import ModelSpec, load_model
from workers.models.reward_head import load_reward_head, save_reward_head


def _rm(folder: Path, *, kind: Any = "linear", request: str | None = None) -> Path:
    write_llava(folder)
    size = json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"]
    tensors = {"weight": torch.linspace(-1, 1, size)[None], "bias": torch.tensor([0.25])}
    save_reward_head(kind, tensors, folder, request=request)
    return folder


def test_the_head_stands_where_vllm_looks_and_the_model_loads_as_before(tmp_path: Path) -> None:
    folder = _rm(tmp_path / "rm")
    before = load_file(folder / "model.safetensors")
    for _ in range(2):  # the second time changes nothing
        assert as_classifier(folder) and gives_rewards_alone(folder)
        config = json.loads((folder / "config.json").read_text())
        assert config["architectures"] == ["LlavaForSequenceClassification"]
        for part in (config, config["text_config"]):
            assert (part["num_labels"], part["problem_type"]) == (1, "regression")
        added = load_file(folder / "score.safetensors")
        assert added["language_model.score.bias"].tolist() == [0.25] and len(added) == 2
    check_model_folder(folder)
    model, _ = load_model(ModelSpec(path=str(folder), dtype="float32"))
    head = load_reward_head(folder, model.config.get_text_config().hidden_size, dtype=torch.float32)
    assert torch.equal(head.weight, added["language_model.score.weight"])
    after = load_file(folder / "model.safetensors")
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in after)


def test_an_index_names_the_head_too(tmp_path: Path) -> None:
    folder = _rm(tmp_path / "rm")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    told = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(told))
    assert as_classifier(folder)
    named = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert {name for name, file in named.items() if file == "score.safetensors"} == set(
        load_file(folder / "score.safetensors")
    )
    check_model_folder(folder)
    load_model(ModelSpec(path=str(folder), dtype="float32"))


@pytest.mark.parametrize("why", ["it writes critiques", "its head has two layers", "no head", "vLLM does not serve it"])
def test_a_folder_that_vllm_cannot_serve_stays_as_it_is(why: str, tmp_path: Path) -> None:
    folder = _rm(
        tmp_path / "rm",
        kind="mlp" if why == "its head has two layers" else "linear",
        request="why ?" if why == "it writes critiques" else None,
    )
    if why == "no head":
        (folder / "reward_head" / "config.json").unlink()
    if why == "vLLM does not serve it":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "instructblip"}))
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    assert not as_classifier(folder) and not gives_rewards_alone(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before
