"""Prompts and images reach the model as its own processor would have prepared them, many patches an image or one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import MIXED_SIZES, picture_prompts, respond
from workers.multimodal.collate import Collator
from workers.multimodal.instructions import plain_text
from workers.multimodal.media import load_image
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

_TEXT_KEYS = {"input_ids", "attention_mask", "mm_token_type_ids"}


@pytest.fixture(scope="module", params=TINY_MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> PromptEncoder:
    return PromptEncoder(folder)


def _by_processor(encoder: PromptEncoder, prompt: Prompt) -> dict[str, Any]:
    """What a user of transformers alone would write."""
    if encoder.processor.chat_template is None:
        text = plain_text(prompt.messages)
    else:
        text = encoder.processor.apply_chat_template(list(prompt.messages), add_generation_prompt=True, tokenize=False)
    # Nested: a flat list is taken for prompts of one image each.
    images = [[load_image(ref) for ref in prompt.media]] if prompt.media else None
    return encoder.processor(text=[text], images=images, return_tensors="pt")


@pytest.mark.parametrize(("count", "first"), [(0, 0), (1, 0), (1, 1), (1, 2), (3, 0)])
def test_a_prompt_is_what_the_processor_makes_of_it(
    encoder: PromptEncoder, folder: Path, tmp_path: Path, count: int, first: int
) -> None:
    if count > 1 and encoder.config.model_type == "instructblip":
        pytest.skip("InstructBlipProcessor takes one image a text")
    sizes = MIXED_SIZES[first:] + MIXED_SIZES[:first]
    (prompt,) = picture_prompts(tmp_path, {"p": count}, sizes=sizes)
    wanted = _by_processor(encoder, prompt)
    assert list(encoder.encode(prompt).prompt_ids) == wanted["input_ids"][0].tolist()
    sequence = respond(encoder, prompt, np.array([9, 8]))
    found = Collator(folder, dtype=torch.float32, share_prompts=False)([sequence]).mm_inputs
    if not count:
        assert found == {}
        return
    for name in sorted((set(wanted) | set(found)) - _TEXT_KEYS):
        torch.testing.assert_close(found[name], wanted[name], msg=lambda text, name=name: f"{name}: {text}")


def test_no_token_of_an_image_can_be_sampled(encoder: PromptEncoder, tmp_path: Path) -> None:
    (prompt,) = picture_prompts(tmp_path, {"p": 1})
    ids = encoder.encode(prompt).prompt_ids
    plain = encoder.encode(picture_prompts(tmp_path, {"p": 0})[0]).prompt_ids
    of_images = set(ids) - set(plain) - set(encoder.tokenizer("\n")["input_ids"])
    assert of_images and of_images <= set(encoder.vision_token_ids)
