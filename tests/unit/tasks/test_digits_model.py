"""The embedded model: a real Qwen2.5-VL with a closed vocabulary, which transformers loads like any other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from algorithms.records import Sequence
from orchestrator.data.reading import SourceFile, read_prompts
from orchestrator.tasks.digits import SIDE, DigitsPaths, build_digits_data
from orchestrator.tasks.digits_model import build_digits_model
from workers.models.folder import check_model_folder
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> PromptEncoder:
    return PromptEncoder(folder)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prompt, ...]:
    paths: DigitsPaths = build_digits_data(tmp_path_factory.mktemp("data"), seed=0)
    file = paths.held_out
    dataset = read_prompts(
        SourceFile(path=file, read_by="r1_reward", media_root=file.parent, max_pixels=SIDE * SIDE, video_frames=1)
    )
    assert not dataset.bad_rows
    return dataset.prompts


def test_the_folder_passes_the_check_of_anybodys_model(folder: Path) -> None:
    assert check_model_folder(folder)["model_type"] == "qwen2_5_vl"


def test_an_image_is_four_tokens_and_a_prompt_is_short(encoder: PromptEncoder, prompts: tuple[Prompt, ...]) -> None:
    encoded = encoder.encode(prompts[0])
    assert encoded.engine_prompt_ids.count(encoder.image_token_id) == 1
    assert encoded.prompt_ids.count(encoder.image_token_id) == 4
    assert len(encoded.prompt_ids) < 40


def test_the_processor_expands_a_prompt_to_the_same_ids(
    folder: Path, encoder: PromptEncoder, prompts: tuple[Prompt, ...]
) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    text = processor.apply_chat_template(list(prompts[0].messages), add_generation_prompt=True, tokenize=False)
    with Image.open(prompts[0].media[0].path) as image:
        inputs = processor(text=[text], images=[image], return_tensors="pt")
    assert tuple(inputs["input_ids"][0].tolist()) == encoder.encode(prompts[0]).prompt_ids
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 4]]


def test_every_word_of_the_task_is_known_and_comes_back_exactly(
    encoder: PromptEncoder, prompts: tuple[Prompt, ...]
) -> None:
    unknown = encoder.tokenizer.unk_token_id
    for prompt in prompts:
        assert unknown not in encoder.encode(prompt).prompt_ids
        assert prompt.target is not None
        target = encoder.encode_target(prompt.target)
        assert unknown not in target
        assert encoder.decode(target) == prompt.target
    assert encoder.tokenizer("nonsense")["input_ids"] == [unknown]


def test_a_response_ends_with_the_token_that_ends_generation(folder: Path, encoder: PromptEncoder) -> None:
    end = encoder.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert encoder.encode_target("1")[-1] == end
    assert AutoModelForImageTextToText.from_pretrained(folder).generation_config.eos_token_id == end


def test_plain_text_content_is_worded_like_a_text_part(encoder: PromptEncoder) -> None:
    texts = [
        encoder.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        for content in ("which ?", [{"type": "text", "text": "which ?"}])
    ]
    assert texts[0] == texts[1]
    assert "which ?" in texts[0]


def test_the_logits_depend_on_the_image(folder: Path, encoder: PromptEncoder, prompts: tuple[Prompt, ...]) -> None:
    one, other = prompts[0], prompts[2]  # rows come in pairs of one image
    assert one.media != other.media
    ids = np.asarray(encoder.encode(one).prompt_ids, dtype=np.int64)
    sequences = [
        Sequence(uid=p.uid, sample_index=0, input_ids=ids, prompt_len=len(ids), media=p.media)
        for p in (one, other, one)
    ]
    batch = Collator(folder, dtype=torch.float32, share_prompts=False)(sequences)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_200_000
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), **batch.mm_inputs).logits[
            :, -1
        ]
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits[0], logits[2])
    assert (logits[0] - logits[1]).abs().max() > 1e-4


def test_the_seed_decides_the_weights(folder: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    again, other = (build_digits_model(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [(path / "model.safetensors").read_bytes() for path in (folder, again, other)]
    assert weights[0] == weights[1] != weights[2]


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    build_digits_model(tmp_path, seed=0)
    (tmp_path / "config.json").write_text("mine")
    build_digits_model(tmp_path, seed=0)
    assert (tmp_path / "config.json").read_text() == "mine"
    build_digits_model(tmp_path, seed=1)
    assert (tmp_path / "config.json").read_text() != "mine"
