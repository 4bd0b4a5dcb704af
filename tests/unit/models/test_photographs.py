"""Photographs, a frozen tower whose features are kept, packed rows: what the plain forward says of the same prompts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from algorithms.maths.logprobs import token_logprobs
from tests.tiny_models import TINY_MODELS, write_released_qwen2_5_vl
from tests.tiny_prompts import respond
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule, hidden_states
from workers.models.vision_features import keep_features
from workers.multimodal.collate import Batch, Collator
from workers.multimodal.media import MediaRef, probe_image
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

_WRITERS = {**TINY_MODELS, "released vocabulary": write_released_qwen2_5_vl}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[MediaRef, ...]:
    """One lying, one standing."""
    folder = tmp_path_factory.mktemp("photographs")
    china, flower = (Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg"))
    china.save(folder / "china.jpg")
    flower.rotate(90, expand=True).save(folder / "flower.jpg")
    return tuple(probe_image(file, max_pixels=10**6) for file in sorted(folder.iterdir()))


@pytest.mark.parametrize("name", _WRITERS)
def test_photographs_are_seen_as_by_the_plain_forward(
    name: str, photographs: tuple[MediaRef, ...], tmp_path: Path
) -> None:
    folder = _WRITERS[name](tmp_path / "model")
    encoder, (plain, adapter) = PromptEncoder(folder), load_model(ModelSpec(path=str(folder), dtype="float32"))
    shared = ModelSpec(path=str(folder), dtype="float32", share_prompts=adapter.shares_prompts)
    policy = PolicyModule(load_model(shared)[0], lockstep=False)
    for own, parameter in policy.model.named_parameters():
        parameter.requires_grad_(adapter.module_of(own) != "vision")
    kept = keep_features(policy, adapter)
    seen = [photographs[:1], photographs[1:], *([] if adapter.qformer else [photographs])]
    rng = np.random.default_rng(0)
    sequences = [
        respond(encoder, _prompt(str(number), media), rng.integers(8, 30, length), sample_index=index)
        for number, media in enumerate(seen)
        for index, length in enumerate((5, 1, 17))
    ]
    batch = Collator.of(shared)(sequences)
    with torch.no_grad():
        found, again = policy(batch).logprobs, policy(batch).logprobs
        wanted = _plain(plain, Collator.of(shared, share_prompts=False)(sequences))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert torch.equal(found, again) and kept.num_bytes > 0


def _prompt(uid: str, media: tuple[MediaRef, ...]) -> Prompt:
    content = [{"type": "image"}] * len(media) + [{"type": "text", "text": "What is shown? Say it."}]
    return Prompt(uid=uid, messages=({"role": "user", "content": content},), media=media)


def _plain(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    states = hidden_states(
        model, batch.mm_inputs, input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()
    )
    logits = model.get_output_embeddings()(states.flatten(0, 1)[batch.predictors])  # type: ignore[operator]
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)  # type: ignore[operator,union-attr]
    capped = logits if cap is None else cap * torch.tanh(logits / cap)
    return token_logprobs(capped, batch.targets).logprobs
