"""vLLM reads every architecture's exported checkpoint, and the weights sent to it, and scores as the trainer does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.records import MediaRef, SamplingDistribution, Sequence
from orchestrator.cluster.environment import worker_environment
from tests.integration.vllm_sampler import TEMPERATURES, sampled_prompts
from tests.tiny_models import TINY_MODELS
from workers.models.adapters import ADAPTERS, ModelAdapter
from workers.models.export import export_folder
from workers.models.loading import ModelSpec, kept_buffers, load_model, released_tensors
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder

pytestmark = [pytest.mark.integration, pytest.mark.soak]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("model_type", "max_pixels"),
    [*((name, None) for name in TINY_MODELS if ADAPTERS[name].vllm), ("qwen2_5_vl", 1568)],
)
def test_vllm_scores_what_the_trainer_exported_as_the_trainer_does(
    model_type: str, max_pixels: int | None, tmp_path: Path
) -> None:
    source = TINY_MODELS[model_type](tmp_path / "model")
    model, adapter = load_model(ModelSpec(path=str(source), dtype="float32"))
    exported, changed, pictures = (tmp_path / name for name in ("exported", "changed", "pictures"))
    pictures.mkdir()
    export_folder(_weights(model, adapter), source=source, target=exported)
    following, _ = load_model(ModelSpec(path=str(source), dtype="float32"))
    _learn(following)
    export_folder(_weights(following, adapter), source=source, target=changed)
    rows = _sampled(exported, changed / "model.safetensors", pictures, tmp_path / "sampled.json", max_pixels)

    media = {p.uid: p.media for p in sampled_prompts(pictures)}
    collate = Collator(source, dtype=torch.float32, share_prompts=False, max_pixels=max_pixels)
    banned = PromptEncoder(source).vision_token_ids
    for trainer, weights, temperature in (
        (PolicyModule(m, lockstep=False), w, t)
        for m, w in ((model, "first"), (following, "next"))
        for t in TEMPERATURES
    ):
        drawn = [row for row in rows if row["temperature"] == temperature and row["weights"] == weights]
        batch = collate([_sequence(row, media[row["uid"]]) for row in drawn])
        with torch.no_grad():
            scored = trainer(batch, SamplingDistribution(temperature=temperature, banned_ids=banned)).logprobs
        for row, wanted in zip(drawn, batch.split(scored), strict=True):
            found, said = torch.tensor(row["logprobs"]), f"{row['uid']} at temperature {temperature}, {weights} weights"
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0, msg=lambda text, said=said: f"{said}: {text}")


def _weights(model: Any, adapter: ModelAdapter) -> dict[str, torch.Tensor]:
    return {name: tensor.clone().contiguous() for name, tensor in released_tensors(model, adapter).items()}


def _learn(model: Any) -> None:
    """Every tensor of a checkpoint becomes another one."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*model.parameters(), *(buffer for _, buffer in kept_buffers(model))):
            tensor.mul_(1.0 + 0.3 * torch.rand(tensor.shape, generator=generator))


def _sequence(row: dict, media: tuple[MediaRef, ...]) -> Sequence:
    return Sequence(
        uid=row["uid"],
        sample_index=0,
        input_ids=np.array(row["prompt_ids"] + row["completion_ids"]),
        prompt_len=len(row["prompt_ids"]),
        media=media,
    )


def _sampled(model: Path, following: Path, pictures: Path, result: Path, max_pixels: int | None) -> list[dict]:
    bound = [] if max_pixels is None else [str(max_pixels)]
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.integration.vllm_sampler",
            *map(str, (model, following, pictures, result)),
            *bound,
        ],
        env={**os.environ, **worker_environment(1, gpu=False)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1380,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(result.read_text())
