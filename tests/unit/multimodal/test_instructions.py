"""What a Q-Former reads beside an image: the prompt that the image stands in, in its own tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.records import Sequence
from tests.tiny_models import write_instructblip
from tests.tiny_prompts import picture_prompts, respond
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Collator
from workers.multimodal.instructions import num_images, plain_text
from workers.multimodal.prompt_encoder import PromptEncoder

_PAD, _CLS, _SEP, _UNK, _WHICH, _MARK, _ONE, _TWO = range(8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_instructblip(tmp_path_factory.mktemp("instructblip") / "model")


@pytest.fixture(scope="module")
def sequences(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sequence]:
    """Two images and a short question, one image and a long one, no image."""
    encoder, root = PromptEncoder(folder), tmp_path_factory.mktemp("pictures")
    prompts = [
        *picture_prompts(root, {"two": 2}, text="which ?"),
        *picture_prompts(root, {"one": 1}, text="one two which one two which one two"),
        *picture_prompts(root, {"none": 0}, text="one ?"),
    ]
    return [respond(encoder, prompt, np.array([9, 8, 7])) for prompt in prompts]


def test_each_image_comes_with_its_own_prompt_cut_to_the_longest(folder: Path, sequences: list[Sequence]) -> None:
    inputs = Collator(folder, dtype=torch.float32, share_prompts=False)(sequences).mm_inputs
    short = [_CLS, _WHICH, _MARK, _SEP, _PAD, _PAD, _PAD, _PAD]
    assert inputs["qformer_input_ids"].tolist() == [
        short,
        short,
        [_CLS, _ONE, _TWO, _WHICH, _ONE, _TWO, _WHICH, _SEP],
    ]
    assert inputs["qformer_attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]] * 2 + [[1] * 8]


@pytest.mark.parametrize("share", [False, True])
def test_prompts_of_unequal_length_do_not_touch_each_other(
    folder: Path, sequences: list[Sequence], share: bool
) -> None:
    model, _ = load_model(ModelSpec(path=str(folder), dtype="float32", share_prompts=share))
    module, collate = PolicyModule(model, lockstep=False), Collator(folder, dtype=torch.float32, share_prompts=share)
    together, *_ = module(collate(sequences))
    alone = torch.cat([module(collate([s]))[0] for s in sequences])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_conversation_is_its_texts_line_by_line() -> None:
    messages = (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "which ?"}, {"type": "image"}]},
    )
    assert plain_text(messages) == "be brief\nwhich ?"
    assert num_images(messages) == 2
