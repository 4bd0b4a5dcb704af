"""What makes a row slow, counted by hand and read off every architecture's configuration."""

from pathlib import Path

import pytest
from transformers import AutoConfig, LlamaConfig, PreTrainedConfig, Qwen2_5_VLConfig

from orchestrator.cluster.row_work import TOKENS_ALONE, RowWeights, row_weights
from tests.tiny_models import TINY_MODELS
from workers.multimodal.processor import fixed_side


def test_a_shared_prompt_is_attended_by_each_response_and_runs_once() -> None:
    weights = RowWeights(pair=1.0, action=0.0, patch=0.0)
    tokens, pairs = 4 + 2 + 6, 4 * 4 / 2 + (4 * 2 + 2 * 2 / 2) + (4 * 6 + 6 * 6 / 2)
    assert weights.of_row(4, [2, 6], 0) == 1024 * (tokens + pairs)


def test_images_count_once_a_row_and_only_where_they_weigh_something() -> None:
    weights = RowWeights(pair=0.0, action=0.5, patch=2.0, patch_side=10)
    patches = weights.patches_of([(100, 50), (1000, 1000)], max_pixels=10_000)
    assert patches == 50 + 100
    assert weights.of_row(4, [2, 6], patches) == 1024 * (12 + 4 + 300)
    assert RowWeights(pair=0.0, action=0.5, patch=0.0).patches_of([(100, 50)], max_pixels=None) == 0


def test_the_weights_of_qwen2_5_vl_7b_are_those_of_its_layers() -> None:
    """Its 28 layers have 6.5 billion weights; a pair costs what 28 x 28 heads of 128 take twice."""
    text = {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064,
    }  # fmt: skip
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    weights, layers = row_weights(config, tower_runs=True), 6_525_288_448
    assert weights.pair == pytest.approx(2 * 28 * 28 * 128 / layers)
    assert weights.action == pytest.approx(3584 * 152064 / layers)
    assert weights.patch == pytest.approx(32 * (4 * 1280**2 + 3 * 1280 * 3420) / layers) and weights.patch_side == 14
    assert not row_weights(config, tower_runs=False).patch


@pytest.mark.parametrize("model_type", TINY_MODELS)
def test_every_architecture_says_what_its_rows_weigh(model_type: str, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(TINY_MODELS[model_type](tmp_path / "model"))
    weights = row_weights(config, tower_runs=True)
    assert min(weights.pair, weights.action, weights.patch) > 0.0


@pytest.mark.parametrize(
    "model_type", ["llava", "gemma3", "instructblip", "qwen2_5_vl", "glm4v", "llava_next", "internvl"]
)
def test_a_tower_of_a_fixed_size_sees_as_much_of_every_image(model_type: str, tmp_path: Path) -> None:
    folder = TINY_MODELS[model_type](tmp_path / "model")
    config = AutoConfig.from_pretrained(folder)
    side = fixed_side(folder, config)
    fixed = model_type in ("llava", "gemma3", "instructblip")
    assert side == (config.vision_config.image_size if fixed else None)


def test_patches_of_llava_and_of_qwen() -> None:
    weights = RowWeights(pair=0.0, action=0.0, patch=1.0, patch_side=14)
    files = [(4000, 3000), (30, 20)]
    assert weights.patches_of(files, max_pixels=None, fixed_side=336) == 2 * 576
    assert weights.patches_of(files, max_pixels=14 * 14 * 1000, fixed_side=None) == 1000 + 3


def test_a_configuration_that_says_less_is_balanced_by_what_it_says() -> None:
    """Qwen-VL's and XComposer2's own have no ``vision_config``, Gemma 4's may have none; some know other words."""
    text = LlamaConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, vocab_size=99)
    seen = row_weights(text, tower_runs=True)
    assert seen == row_weights(text, tower_runs=False) and not seen.patch and min(seen.pair, seen.action) > 0
    for vision in (None, PreTrainedConfig.from_dict({"width": 1664})):
        text.vision_config = vision
        assert row_weights(text, tower_runs=True) == seen
    assert row_weights(PreTrainedConfig.from_dict({"n_embd": 64, "n_layer": 2}), tower_runs=True) == TOKENS_ALONE
