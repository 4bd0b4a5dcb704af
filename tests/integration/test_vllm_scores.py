"""vLLM takes an exported reward model for a classifier with one label, and gives the rewards that the trainer gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from orchestrator.cluster.environment import worker_environment
from orchestrator.run.model_folder import export
from tests.integration.vllm_scores import asked
from tests.tiny_models import TINY_MODELS
from workers.models.adapters import ADAPTERS
from workers.models.export import export_folder
from workers.models.loading import ModelSpec, load_model, released_tensors
from workers.models.policy_module import RewardModule
from workers.models.reward_head import RewardHead, save_reward_head
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder

pytestmark = [pytest.mark.integration, pytest.mark.soak]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("model_type", "bias"),
    [
        *((name, False) for name in TINY_MODELS if ADAPTERS[name].vllm_score is not None),
        # One family of each place that vLLM has for the head.
        *((name, True) for name in ("qwen2_5_vl", "qwen3_vl")),
    ],
)
def test_vllm_gives_the_rewards_of_an_exported_reward_model(model_type: str, bias: bool, tmp_path: Path) -> None:
    source = TINY_MODELS[model_type](tmp_path / "model")
    model, adapter = load_model(ModelSpec(path=str(source), dtype="float32"))
    head = RewardHead("linear", model.config.get_text_config().hidden_size, bias=bias)
    generator = torch.Generator().manual_seed(0)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    checkpoint, served, pictures = (tmp_path / name for name in ("step_000001", "served", "pictures"))
    pictures.mkdir()
    weights = {name: tensor.clone().contiguous() for name, tensor in released_tensors(model, adapter).items()}
    export_folder(weights, source=source, target=checkpoint / "policy")
    save_reward_head("linear", {n: p.detach() for n, p in head.named_parameters()}, checkpoint / "policy", request=None)
    (checkpoint / "manifest.json").write_text("{}")
    export(checkpoint, served)

    most = 1 if adapter.tiles_alone else 2
    found = torch.tensor(_scores(served, pictures, tmp_path / "scores.json", most))
    sequences = [sequence for sequence, _ in asked(PromptEncoder(source), pictures, most_images=most)]
    collate = Collator(source, dtype=torch.float32, share_prompts=False, max_pixels=None)
    with torch.no_grad():
        wanted = RewardModule(model, head, lockstep=False)(collate(sequences))
    assert found.shape == (len(sequences), 1) and wanted.std() > 1e-2, "answers are told apart"
    torch.testing.assert_close(found[:, 0], wanted, atol=1e-3, rtol=0)


def _scores(model: Path, pictures: Path, result: Path, most_images: int) -> list[list[float]]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.integration.vllm_scores", *map(str, (model, pictures, result, most_images))],
        env={**os.environ, **worker_environment(1, gpu=False)},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(result.read_text())
