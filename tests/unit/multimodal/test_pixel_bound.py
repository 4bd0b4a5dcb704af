"""One bound on an image's pixels, the same for the prompt's ids, the trainer, an engine and the exported folder."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from algorithms.records import Sequence
from tests.tiny_models import TINY_MODELS
from workers.models.adapters import ADAPTERS
from workers.models.export import copy_processor, export_folder
from workers.multimodal.collate import Collator
from workers.multimodal.media import probe_image
from workers.multimodal.processor import engine_options, load_processor, write_bound
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

_BOUND = 2 * 28 * 28 * 4


@pytest.fixture(scope="module", params=TINY_MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = TINY_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")
    config = json.loads((folder / "processor_config.json").read_text())
    size = config["image_processor"].get("size", {})
    if "longest_edge" in size:  # room for a bound below the processor's own
        size["longest_edge"] = 10**6
        (folder / "processor_config.json").write_text(json.dumps(config))
    return folder


def _ids_and_pixels(folder: Path, root: Path, max_pixels: int | None) -> tuple[tuple[int, ...], torch.Tensor]:
    file = root / "large.png"
    if not file.exists():
        Image.effect_noise((400, 300), 90).convert("RGB").save(file)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "which ?"}]}
    prompt = Prompt(uid="p", messages=(message,), media=(probe_image(file),))
    ids = PromptEncoder(folder, max_pixels=max_pixels).encode(prompt).prompt_ids
    collate = Collator(folder, dtype=torch.float32, share_prompts=False, max_pixels=max_pixels)
    sequence = Sequence(
        uid="p", sample_index=0, input_ids=torch.tensor([*ids, 9]).numpy(), prompt_len=len(ids), media=prompt.media
    )
    return ids, collate([sequence]).mm_inputs["pixel_values"]


def test_a_bound_makes_an_image_smaller_where_the_processor_resizes_by_pixels(folder: Path, tmp_path: Path) -> None:
    own_ids, own = _ids_and_pixels(folder, tmp_path, None)
    ids, pixels = _ids_and_pixels(folder, tmp_path, _BOUND)
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    if not ADAPTERS[model_type].bounds_pixels:
        assert ids == own_ids and torch.equal(pixels, own)
        assert engine_options(folder, max_pixels=_BOUND) == {}
        return
    patch = load_processor(folder).image_processor.patch_size
    assert len(ids) < len(own_ids) and len(pixels) * patch**2 <= _BOUND
    size = engine_options(folder, max_pixels=_BOUND)["images_kwargs"]["size"]
    by_engine = load_processor(folder).image_processor(images=[Image.open(tmp_path / "large.png")], size=size)
    assert torch.equal(by_engine["pixel_values"], pixels)


def test_the_exported_folder_has_the_bound(folder: Path, tmp_path: Path) -> None:
    export_folder({"x": torch.zeros(1)}, source=folder, target=tmp_path / "exported", max_pixels=_BOUND)
    wanted = _ids_and_pixels(folder, tmp_path, _BOUND)
    found = _ids_and_pixels(tmp_path / "exported", tmp_path, None)
    assert found[0] == wanted[0] and torch.equal(found[1], wanted[1])
    export_folder({"x": torch.zeros(1)}, source=folder, target=tmp_path / "plain")
    assert (tmp_path / "plain/processor_config.json").read_text() == (folder / "processor_config.json").read_text()


def test_an_image_below_the_least_is_not_enlarged_beyond_the_bound(folder: Path, tmp_path: Path) -> None:
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    if not ADAPTERS[model_type].bounds_pixels:
        return
    patch = load_processor(folder).image_processor.patch_size
    _, pixels = _ids_and_pixels(folder, tmp_path, 28 * 28 * 2)
    assert len(pixels) * patch**2 <= 28 * 28 * 2


def test_the_bound_is_written_into_files_of_the_releases_own_kind(tmp_path: Path) -> None:
    """Qwen2-VL and Qwen2.5-VL were released with two numbers in ``preprocessor_config.json``."""
    source = TINY_MODELS["qwen2_5_vl"](tmp_path / "model")
    config = json.loads((source / "processor_config.json").read_text())
    released = config["image_processor"] | {"min_pixels": 3136, "max_pixels": 12_845_056}
    (source / "processor_config.json").unlink()
    for sized in (True, False):
        described = released if sized else {k: v for k, v in released.items() if k != "size"}
        (source / "preprocessor_config.json").write_text(json.dumps(described))
        (target := tmp_path / f"adapter-{sized}").mkdir()
        copy_processor(source, target, max_pixels=_BOUND)
        saved = json.loads((target / "preprocessor_config.json").read_text())
        assert (saved["min_pixels"], saved["max_pixels"]) == (3136, _BOUND)
        assert saved["size"] == {"shortest_edge": 3136, "longest_edge": _BOUND}
        write_bound(source, max_pixels=_BOUND)
        assert dict(AutoProcessor.from_pretrained(source).image_processor.size)["longest_edge"] == _BOUND
