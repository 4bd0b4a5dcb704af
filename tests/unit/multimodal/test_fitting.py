"""An image of any size is what the processor makes of it, or is refused with a reason before anything is started."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from algorithms.records import Sequence
from tests.tiny_models import TINY_MODELS
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Collator
from workers.multimodal.media import load_image, probe_image
from workers.multimodal.processor import UnfitImageError
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

# GLM's processors ask numpy for an array of a tensor in a way that numpy 2 wants spelled otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class _Model:
    """One architecture, and a folder for images."""

    def __init__(self, model_type: str, root: Path) -> None:
        folder = TINY_MODELS[model_type](root / "model")
        self.root, self.encoder = root, PromptEncoder(folder)
        self.collate = Collator(folder, dtype=torch.float32, share_prompts=False)
        self.module = PolicyModule(load_model(ModelSpec(path=str(folder), dtype="float32"))[0], lockstep=False)

    def prompt(self, *sizes: tuple[int, int]) -> Prompt:
        """One with images of these widths and heights."""
        media = []
        for width, height in sizes:
            file = self.root / f"{width}x{height}.png"
            if not file.exists():
                Image.effect_noise((width, height), 90).convert("RGB").save(file)
            media.append(probe_image(file))
        content = [{"type": "image"}] * len(sizes) + [{"type": "text", "text": "which ?"}]
        return Prompt(uid="p", messages=({"role": "user", "content": content},), media=tuple(media))


@pytest.fixture(scope="module", params=TINY_MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Model:
    return _Model(request.param, tmp_path_factory.mktemp(request.param))


_SIDES = st.integers(1, 60) | st.integers(1, 900)


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.tuples(_SIDES, _SIDES), min_size=1, max_size=2))
def test_an_image_of_any_size_is_taken_as_the_processor_takes_it_or_refused(
    model: _Model, sizes: list[tuple[int, int]]
) -> None:
    if model.encoder.config.model_type == "instructblip":
        sizes = sizes[:1]
    prompt = model.prompt(*sizes)
    try:
        ids = model.encoder.encode(prompt).prompt_ids
    except UnfitImageError as error:
        assert f"is {sizes[error.index][0]} x {sizes[error.index][1]}: the model's processor" in str(error)
        return
    images = [[load_image(ref) for ref in prompt.media]]
    token = getattr(model.encoder.processor, "image_token", "")
    text = str(token) * len(sizes) if model.encoder.processor.chat_template else ""
    wanted = model.encoder.processor(text=[text], images=images, return_tensors="pt")
    image_token = model.encoder.image_token_id
    assert ids.count(image_token) == int((wanted["input_ids"] == image_token).sum())
    answer = np.append(np.asarray(ids), [9, 8])
    sequence = Sequence(uid="p", sample_index=0, input_ids=answer, prompt_len=len(ids), media=prompt.media)
    batch = model.collate([sequence])
    torch.testing.assert_close(batch.mm_inputs["pixel_values"], wanted["pixel_values"])
    with torch.no_grad():  # the model itself refuses features that are not as many as the placeholders
        assert model.module(batch).logprobs.isfinite().all()


@pytest.mark.parametrize("model", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"], indirect=True)
def test_an_image_too_thin_for_the_processor_is_refused_with_the_bound(model: _Model) -> None:
    model.encoder.encode(model.prompt((800, 4), (4, 800)))
    with pytest.raises(UnfitImageError) as caught:
        model.encoder.encode(model.prompt((800, 4), (1200, 4)))
    assert str(caught.value) == "image 2 is 1200 x 4: the model's processor takes at most 200 : 1"
