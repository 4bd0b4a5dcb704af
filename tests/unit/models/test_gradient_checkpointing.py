"""Recomputing activations changes neither a score nor a gradient: transformers does it in training mode only."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import picture_prompts, respond
from workers.models.adapters import ADAPTERS
from workers.models.loading import ModelSpec, load_model, train_without_dropout
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Batch, Collator
from workers.multimodal.prompt_encoder import PromptEncoder


@pytest.mark.parametrize("model_type", TINY_MODELS)
def test_checkpointed_scores_and_gradients_are_the_plain_ones(model_type: str, tmp_path: Path) -> None:
    folder = TINY_MODELS[model_type](tmp_path / "model")
    encoder = PromptEncoder(folder)
    sequences = [respond(encoder, p, np.array([9, 8, 7])) for p in picture_prompts(tmp_path, {"one": 1, "none": 0})]
    share = ADAPTERS[model_type].shares_prompts
    batch = Collator(folder, dtype=torch.float32, share_prompts=share)(sequences)
    spec = ModelSpec(path=str(folder), dtype="float32", share_prompts=share)
    plain, checkpointed = (PolicyModule(load_model(spec)[0], lockstep=False) for _ in range(2))
    checkpointed.model.gradient_checkpointing_enable({"use_reentrant": False})
    train_without_dropout(checkpointed.model)
    wanted, found = _learned(plain, batch), _learned(checkpointed, batch)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def _learned(module: PolicyModule, batch: Batch) -> dict[str, torch.Tensor]:
    logprobs, *_ = module(batch)
    logprobs.sum().backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return gradients | {"logprobs": logprobs.detach()}
