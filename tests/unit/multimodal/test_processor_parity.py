"""Prompts and images reach the model as its own processor would have prepared them, on tokenizers as models have them.

Two calls are what a user of transformers alone would write: the processor on the rendered template, and the template's
own tokenization. The images of a conversation are a list of their own in both, as a batch of one has it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.released_tokenizers import BOS_TEMPLATE
from tests.tiny_models import TINY_MODELS, write_released_qwen2_5_vl
from tests.tiny_prompts import MIXED_SIZES, picture_prompts, respond
from workers.multimodal.collate import Collator
from workers.multimodal.instructions import plain_text
from workers.multimodal.media import load_image
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

# GLM's processors ask numpy for an array of a tensor in a way that numpy 2 wants spelled otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_TOKEN_TYPES = {"mm_token_type_ids", "token_type_ids"}
_TEXT_KEYS = {"input_ids", "attention_mask", *_TOKEN_TYPES}


def _with_bos_in_its_template(folder: Path) -> Path:
    TINY_MODELS["llava"](folder)
    (folder / "chat_template.jinja").write_text(BOS_TEMPLATE)
    return folder


_MODELS: dict[str, Callable[[Path], Path]] = {
    **TINY_MODELS,
    "released_vocabulary": write_released_qwen2_5_vl,
    "bos_in_template": _with_bos_in_its_template,
}


@pytest.fixture(scope="module", params=_MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> PromptEncoder:
    return PromptEncoder(folder)


@pytest.fixture(scope="module")
def collator(folder: Path) -> Collator:
    return Collator(folder, dtype=torch.float32, share_prompts=False)


def _by_processor(encoder: PromptEncoder, prompt: Prompt) -> list[dict[str, Any]]:
    """What a user of transformers alone would write."""
    processor, images = encoder.processor, [load_image(ref) for ref in prompt.media]
    if processor.chat_template is None:
        return [processor(text=[plain_text(prompt.messages)], images=images or None, return_tensors="pt")]
    remaining = iter(images)
    turns = [{**turn, "content": [_filled(part, remaining) for part in turn["content"]]} for turn in prompt.messages]
    whole = processor.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    # A template that writes the token itself is what the processor's call, unlike the other one, does not look for.
    written = {"add_special_tokens": False} if text.startswith(encoder.tokenizer.bos_token or "\0") else {}
    return [whole, processor(text=[text], images=[images] if images else None, return_tensors="pt", **written)]


def _filled(part: dict[str, Any], images: Any) -> dict[str, Any]:
    return {"type": "image", "image": next(images)} if part["type"] == "image" else part


def _assert_same(encoder: PromptEncoder, collator: Collator, prompt: Prompt) -> None:
    found = collator([respond(encoder, prompt, np.array([9, 8]))]).mm_inputs
    for wanted in _by_processor(encoder, prompt):
        assert list(encoder.encode(prompt).prompt_ids) == wanted["input_ids"][0].tolist()
        if not prompt.media:
            assert found == {}
            continue
        for name in _TOKEN_TYPES & set(found) & set(wanted):
            assert found[name][0].tolist() == [*wanted[name][0].tolist(), 0, 0]
        for name in sorted((set(wanted) | set(found)) - _TEXT_KEYS):
            torch.testing.assert_close(found[name], wanted[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("count", "first"), [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (3, 0)])
def test_a_prompt_is_what_the_processor_makes_of_it(
    encoder: PromptEncoder, collator: Collator, tmp_path: Path, count: int, first: int
) -> None:
    if count > 1 and encoder.config.model_type == "instructblip":
        pytest.skip("InstructBlipProcessor takes one image a text")
    sizes = MIXED_SIZES[first:] + MIXED_SIZES[:first]
    (prompt,) = picture_prompts(tmp_path, {"p": count}, sizes=sizes, text="Which is 4 or 7?\n\n  Why?")
    _assert_same(encoder, collator, prompt)


@pytest.mark.parametrize("roles", ["user assistant user", "system user", "system user assistant user"])
def test_a_conversation_is_what_the_processor_makes_of_it(
    encoder: PromptEncoder, collator: Collator, tmp_path: Path, roles: str
) -> None:
    if encoder.config.model_type == "instructblip":
        pytest.skip("InstructBlip knows no turns")
    (frames,) = picture_prompts(tmp_path, {"p": 4}, sizes=((70, 42),))
    media, turns = list(frames.media), []
    for role in roles.split():
        content: list[dict[str, Any]] = [{"type": "text", "text": f" The number of {role}? "}]
        if role == "user":  # frames and text, text before an image too where the template keeps them in order
            content = [{"type": "image"}, *content, {"type": "image"}, {"type": "text", "text": "é😀 \t."}]
        turns.append({"role": role, "content": content})
    used = 2 * roles.split().count("user")
    _assert_same(encoder, collator, Prompt(uid="p", messages=tuple(turns), media=tuple(media[:used])))


def test_no_token_of_an_image_can_be_sampled(encoder: PromptEncoder, tmp_path: Path) -> None:
    (prompt,) = picture_prompts(tmp_path, {"p": 1})
    ids = encoder.encode(prompt).prompt_ids
    plain = encoder.encode(picture_prompts(tmp_path, {"p": 0})[0]).prompt_ids
    control = {i for i, token in encoder.tokenizer.added_tokens_decoder.items() if token.special}
    of_images = (set(ids) - set(plain)) & control
    assert of_images and of_images <= set(encoder.vision_token_ids)
