"""What a model costs, counted from its configuration, against torch's own counter and the model's own parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForImageTextToText

from orchestrator.cluster.roofline.layout import Laid
from orchestrator.cluster.roofline.passes import Trained, backward_flops, forward_flops, recomputed_flops, total
from orchestrator.cluster.roofline.shape import ModelCounts, counts_of, model_counts
from tests import tiny_models
from tests.user_files import write_llava

_TOKENS = 48
_FAMILIES: tuple[Callable[[Path], Path], ...] = (
    tiny_models.write_qwen2_5_vl,
    tiny_models.write_qwen3_vl,
    tiny_models.write_qwen3_vl_moe,
    tiny_models.write_glm4v_moe,
    tiny_models.write_gemma3,
    tiny_models.write_gemma4,
    tiny_models.write_idefics3,
    tiny_models.write_internvl,
    tiny_models.write_llava_next,
    write_llava,
)


def _name(write: Any) -> str:
    return write.__name__.removeprefix("write_")


def _model(write: Callable[[Path], Path], folder: Path) -> Any:
    config = AutoConfig.from_pretrained(write(folder))
    # Products that the counter sees one by one; its own formulae for fused kernels differ by platform.
    with torch.random.fork_rng():
        return AutoModelForImageTextToText.from_config(
            config, attn_implementation="eager", experts_implementation="eager"
        )


def _counted(run: Callable[[], Any]) -> tuple[int, int]:
    """FLOPs of products with weights, and of products of activations."""
    with FlopCounterMode(display=False) as counter:
        run()
    found = {str(op).split(".")[1]: flops for op, flops in counter.get_flop_counts()["Global"].items()}
    return sum(flops for op, flops in found.items() if op != "bmm"), found.get("bmm", 0)


def _text(shape: ModelCounts) -> Laid:
    """A row of text in which everything is multiplied, the upper triangle too."""
    return Laid(tokens=_TOKENS, pairs=_TOKENS**2, predicted=_TOKENS)


@pytest.mark.parametrize("write", _FAMILIES, ids=_name)
def test_parameters_are_the_models_own(write: Callable[[Path], Path], tmp_path: Path) -> None:
    model = _model(write, tmp_path / "model")
    shape = model_counts(str(tmp_path / "model"))
    assert shape == counts_of(model)
    assert shape.num_params == sum(p.numel() for p in model.parameters())
    assert sum(part.weights for part in shape.parts().values()) == shape.num_params


@pytest.mark.parametrize("write", _FAMILIES, ids=_name)
def test_a_forward_over_text_is_what_torch_counts(write: Callable[[Path], Path], tmp_path: Path) -> None:
    model = _model(write, tmp_path / "model").eval()
    shape = counts_of(model)
    ids = torch.randint(8, 16, (1, _TOKENS))
    with torch.no_grad():
        weights, activations = _counted(lambda: model(input_ids=ids, use_cache=False))
    flops = forward_flops(shape, _text(shape))
    assert flops["language"] + flops["head"] == weights
    assert flops["attention"] == activations
    assert flops["vision"] == flops["bridge"] == 0


@pytest.mark.parametrize(
    "write", [tiny_models.write_qwen2_5_vl, tiny_models.write_qwen3_vl_moe, write_llava], ids=_name
)
def test_a_backward_over_text_is_what_torch_counts(write: Callable[[Path], Path], tmp_path: Path) -> None:
    model = _model(write, tmp_path / "model").eval()
    shape = counts_of(model)
    loss = model(input_ids=torch.randint(8, 16, (1, _TOKENS)), use_cache=False).logits.sum()
    weights, activations = _counted(loss.backward)
    flops = backward_flops(shape, _text(shape), Trained(), attention=2.0)
    assert flops["language"] + flops["head"] == weights
    assert flops["attention"] == activations


@pytest.mark.parametrize(
    "write", [tiny_models.write_qwen2_5_vl, tiny_models.write_qwen3_vl_moe, write_llava], ids=_name
)
def test_frozen_weights_have_no_gradient_and_adapters_add_little(write: Callable[[Path], Path], tmp_path: Path) -> None:
    model = _model(write, tmp_path / "model").eval()
    model.requires_grad_(False)
    embedded = model.get_input_embeddings()(torch.randint(8, 16, (1, _TOKENS))).requires_grad_()
    loss = model(inputs_embeds=embedded, use_cache=False).logits.sum()
    weights, _ = _counted(loss.backward)
    shape, worn = counts_of(model), counts_of(model, freeze=("vision", "bridge"), lora_rank=4)
    of_base = backward_flops(shape, _text(shape), Trained(("vision", "bridge"), lora=True), attention=2.0)
    assert of_base["language"] + of_base["head"] == weights
    added = backward_flops(worn, _text(worn), Trained(("vision", "bridge"), lora=True), attention=2.0)["adapters"]
    assert added == 2 * 2 * worn.language.adapter * _TOKENS
    assert worn.vision.adapter == worn.bridge.adapter == 0 < worn.language.adapter


def _image(model: Any, shape: ModelCounts, name: str) -> tuple[Callable[[], Any], Laid]:
    """The tower and bridge on one image, and what is laid out for it."""
    if name == "qwen2_5_vl":
        grid = torch.tensor([[1, 12, 16]])
        patches = int(grid.prod())
        pixels = torch.randn(patches, model.model.visual.patch_embed.proj.weight[0].numel())
        return lambda: model.model.visual(pixels, grid_thw=grid), Laid(
            image_tokens=patches / 4, seen_tokens=patches / 4, seen_pairs=shape.image_pairs(patches)
        )
    side = model.config.vision_config.image_size
    patches = (side // model.config.vision_config.patch_size) ** 2
    pixels = torch.randn(1, 3, side, side)
    return lambda: model.model.get_image_features(pixels), Laid(
        image_tokens=patches, seen_tokens=patches, seen_pairs=shape.image_pairs(patches)
    )


@pytest.mark.parametrize(("write", "off"), [(tiny_models.write_qwen2_5_vl, 0.0), (write_llava, 0.05)])
def test_a_vision_tower_is_what_torch_counts(write: Callable[[Path], Path], off: float, tmp_path: Path) -> None:
    """CLIP's class token, here beside 16 patches, is not counted."""
    model = _model(write, tmp_path / "model").eval()
    shape = counts_of(model)
    run, laid = _image(model, shape, write.__name__.removeprefix("write_"))
    with torch.no_grad():
        weights, activations = _counted(run)
    flops = forward_flops(shape, laid)
    assert flops["vision"] + flops["bridge"] == pytest.approx(weights + activations, rel=off or 1e-6)


def test_of_a_model_of_experts_only_those_that_a_token_meets_count(tmp_path: Path) -> None:
    shape = counts_of(_model(tiny_models.write_qwen3_vl_moe, tmp_path / "model"))
    language = shape.language
    assert (language.num_experts, language.experts_a_token) == (4, 2)
    assert shape.read_a_token(1) == pytest.approx(language.products + shape.head)
    assert shape.read_a_token(1e9) == pytest.approx(language.products + language.experts + shape.head)


def test_a_frozen_tower_learns_nothing_and_is_not_computed_again(tmp_path: Path) -> None:
    shape = counts_of(_model(tiny_models.write_qwen2_5_vl, tmp_path / "model"))
    laid = Laid(tokens=100, pairs=5000, predicted=50, image_tokens=40, seen_tokens=40, seen_pairs=9000)
    frozen, whole = Trained(("vision", "bridge")), Trained()
    assert backward_flops(shape, laid, frozen)["vision"] == backward_flops(shape, laid, frozen)["bridge"] == 0
    assert backward_flops(shape, laid, Trained(("vision",)))["vision"] == 0
    assert backward_flops(shape, laid, whole)["vision"] > 0
    again = recomputed_flops(shape, laid, whole) - recomputed_flops(shape, laid, frozen)
    assert again == forward_flops(shape, laid)["vision"]
    assert total(backward_flops(shape, laid, frozen)) < total(backward_flops(shape, laid, whole))
