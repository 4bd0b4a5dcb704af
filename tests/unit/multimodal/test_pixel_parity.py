"""Ids and pixels are those of the processor's own call, nested per prompt, whatever the images' number and shape."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from algorithms.records import Sequence
from tests.tiny_models import TINY_MODELS
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Collator
from workers.multimodal.instructions import plain_text
from workers.multimodal.media import load_image, probe_image
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

# GLM's processors ask numpy for an array of a tensor in a way that numpy 2 wants spelled otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_SHAPES = ((56, 56), (112, 56), (40, 90), (1, 1), (3, 200), (57, 29), (300, 17))
"""Width and height."""
_PROMPTS = ((), (0, 1), (2, 2), (3, 4), (0, 5, 6))
"""Images of a prompt, by their shapes."""
_TEXT_KEYS = {
    "input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids", "qformer_input_ids", "qformer_attention_mask",
}  # fmt: skip


@functools.cache
def _picture(root: Path, index: int) -> Any:
    width, height = _SHAPES[index % len(_SHAPES)]
    rng = np.random.default_rng(index)
    file = root / f"{index}.png"
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
    return probe_image(file, max_pixels=10**6)


@pytest.fixture(scope="module", params=TINY_MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> PromptEncoder:
    return PromptEncoder(folder)


@pytest.fixture(scope="module")
def collate(folder: Path) -> Collator:
    return Collator(folder, dtype=torch.float32, share_prompts=False)


@pytest.fixture(scope="module")
def module(folder: Path) -> PolicyModule:
    return PolicyModule(load_model(ModelSpec(path=str(folder), dtype="float32"))[0], lockstep=False)


def _prompt(root: Path, shapes: tuple[int, ...], uid: str = "p") -> Prompt:
    content = [{"type": "image"}] * len(shapes) + [{"type": "text", "text": "which ?"}]
    media = tuple(_picture(root, index) for index in shapes)
    return Prompt(uid=uid, messages=({"role": "user", "content": content},), media=media)


def _sequence(encoder: PromptEncoder, prompt: Prompt) -> Sequence:
    ids = np.asarray(encoder.encode(prompt).prompt_ids)
    answer = np.append(ids, [9, 8])
    return Sequence(uid=prompt.uid, sample_index=0, input_ids=answer, prompt_len=len(ids), media=prompt.media)


def _by_processor(encoder: PromptEncoder, prompt: Prompt) -> dict[str, Any]:
    """What the processor makes of a prompt whose images are known to be of one prompt."""
    if encoder.processor.chat_template is None:
        text = plain_text(prompt.messages)
    else:
        text = encoder.processor.apply_chat_template(list(prompt.messages), add_generation_prompt=True, tokenize=False)
    images = [[load_image(ref) for ref in prompt.media]] if prompt.media else None
    # A template that writes the token itself is what the processor's call does not look for.
    written = {"add_special_tokens": False} if text.startswith(encoder.tokenizer.bos_token or "\0") else {}
    return encoder.processor(text=[text], images=images, return_tensors="pt", **written)


def _skip_what_the_processor_cannot(encoder: PromptEncoder, shapes: tuple[int, ...]) -> None:
    if len(shapes) > 1 and encoder.config.model_type == "instructblip":
        pytest.skip("InstructBlipProcessor takes one image a text")


@pytest.mark.parametrize(
    "shapes", [(), *((i,) for i in range(len(_SHAPES))), (0, 1), (2, 2), (3, 4), (0, 5, 6)], ids=str
)
def test_ids_and_pixels_are_those_of_the_processor(
    encoder: PromptEncoder, collate: Collator, tmp_path_factory: pytest.TempPathFactory, shapes: tuple[int, ...]
) -> None:
    _skip_what_the_processor_cannot(encoder, shapes)
    prompt = _prompt(tmp_path_factory.getbasetemp(), shapes)
    wanted = _by_processor(encoder, prompt)
    assert list(encoder.encode(prompt).prompt_ids) == wanted["input_ids"][0].tolist()
    found = collate([_sequence(encoder, prompt)]).mm_inputs
    for name in sorted((set(wanted) | set(found)) - _TEXT_KEYS):
        torch.testing.assert_close(found[name], wanted[name], msg=lambda text, name=name: f"{name}: {text}")


def test_prompts_with_different_numbers_of_images_share_a_batch(
    encoder: PromptEncoder, collate: Collator, module: PolicyModule, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same image alone and beside another are two things to some processors, and both are in this batch."""
    wanted, root = [(1,), (), (1, 2), (1, 2, 0), (2,)], tmp_path_factory.getbasetemp()
    if encoder.config.model_type == "instructblip":
        wanted = [(1,), (), (2,)]
    sequences = [_sequence(encoder, _prompt(root, shapes, uid=str(shapes))) for shapes in wanted]
    with torch.no_grad():
        together = module(collate(sequences)).logprobs
        alone = torch.cat([module(collate([s])).logprobs for s in sequences])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
