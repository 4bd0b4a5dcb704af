"""Prompts of two architectures: which tokens stand for media, and how many."""

from pathlib import Path

import pytest

from orchestrator.tasks.digits_model import build_digits_model
from tests.user_files import write_llava
from workers.multimodal.processor import expand_placeholders
from workers.multimodal.prompt_encoder import PromptEncoder


@pytest.fixture(scope="module", params=["qwen2_5_vl", "llava"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    folder = tmp_path_factory.mktemp("encoder") / request.param
    return PromptEncoder(write_llava(folder) if request.param == "llava" else build_digits_model(folder, seed=0))


def test_the_image_token_is_among_those_that_must_never_be_sampled(encoder: PromptEncoder) -> None:
    assert encoder.image_token_id in encoder.vision_token_ids
    assert encoder.tokenizer.eos_token_id not in encoder.vision_token_ids


def test_placeholders_are_expanded_one_by_one() -> None:
    assert expand_placeholders([5, 9, 6, 9], 9, [[9, 9], [1, 9, 2]]) == [5, 9, 9, 6, 1, 9, 2]
    with pytest.raises(ValueError, match="2 placeholders but 1 images"):
        expand_placeholders([9, 9], 9, [[9]])


def test_a_demonstration_ends_the_turn(encoder: PromptEncoder) -> None:
    assert encoder.encode_target("1")[-1] in encoder.eos_token_ids


def test_what_somebody_wrote_never_becomes_a_special_token(tmp_path: Path) -> None:
    # Not the digits model: its closed vocabulary has every special token as a word too.
    encoder = PromptEncoder(write_llava(tmp_path / "llava"))
    special = {encoder.image_token_id, *encoder.eos_token_ids}

    for token in encoder.tokenizer.convert_ids_to_tokens(sorted(special)):
        assert special & set(encoder.tokenizer(token, add_special_tokens=False)["input_ids"])
        assert not special & set(encoder.encode_text(f"1 {token} 2"))
        assert encoder.encode_target(token).count(encoder.eos_token_ids[0]) == 1
