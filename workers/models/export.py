"""Writing a plain Hugging Face folder: weights under the released names, adapters merged in, everything else copied."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import AutoModelForImageTextToText

from workers.models.adapter_folder import read_adapter_config
from workers.models.adapters import adapter_for
from workers.models.folder import PROCESSOR_FILES, REWARD_HEAD_FOLDER, check_model_folder, has_reward_head
from workers.models.lora import plain_parameters, wear_adapter
from workers.multimodal.processor import bounds_pixels, write_bound

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_INDEX_MARK = ".index.json"
_TOKENIZER_MARK = "tokenizer_config.json"


def export_folder(
    tensors: dict[str, Tensor], *, source: str | Path, target: Path, max_pixels: int | None = None
) -> None:
    """Write ``target`` so that transformers and vLLM load it like the folder ``source`` it came from.

    Args:
        tensors: Checkpoint name to whole tensor.
        source: The model folder whose configuration, tokenizer and processor are kept.
        max_pixels: Bound on an image's pixels that the model was trained with; None leaves the processor its own.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(Path(source).iterdir()):
        if file.is_file() and file.suffix not in _WEIGHT_SUFFIXES and not file.name.endswith(_INDEX_MARK):
            shutil.copyfile(file, target / file.name)
        elif (file / _TOKENIZER_MARK).is_file():  # a processor's second tokenizer
            shutil.copytree(file, target / file.name, dirs_exist_ok=True)
    if max_pixels is not None and bounds_pixels(source):
        write_bound(target, max_pixels=max_pixels)
    config_file = target / "config.json"
    config = json.loads(config_file.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    config_file.write_text(json.dumps(config, indent=2) + "\n")
    save_torch_state_dict(tensors, target)


def copy_processor(source: str | Path, target: Path, *, max_pixels: int | None) -> None:
    """Put the processor's files beside an adapter, where the bound they hold is not the base's own."""
    if max_pixels is None or not bounds_pixels(source):
        return
    for name in PROCESSOR_FILES:
        if (Path(source) / name).is_file():
            shutil.copyfile(Path(source) / name, target / name)
    write_bound(target, max_pixels=max_pixels)


def export_merged(adapter: Path, *, target: Path) -> None:
    """Write ``target`` as the base that the folder ``adapter`` names, with the adapter merged in.

    The weights keep the number format they have in the base's folder. An adapter that was trained on a quantised base
    is merged into the base as it was before.

    Raises:
        ValueError: the folder holds no adapter, or its base is not there.
    """
    base = read_adapter_config(adapter)["base_model_name_or_path"]
    try:
        check_model_folder(base)
    except ValueError as error:
        raise ValueError(f"{str(adapter)!r} cannot be merged into its base model: {error}") from error
    model: Any = AutoModelForImageTextToText.from_pretrained(base, dtype="auto")
    architecture, scale = adapter_for(model.config.model_type), wear_adapter(model, adapter)
    tensors = {
        released: part.contiguous()
        for name, tensor, _ in plain_parameters(model, lambda _: nullcontext(), scale=scale)
        for released, part in architecture.released(name, tensor)
    }
    export_folder(tensors, source=base, target=target)
    for name in PROCESSOR_FILES:
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, target / name)
    if has_reward_head(adapter):
        shutil.copytree(adapter / REWARD_HEAD_FOLDER, target / REWARD_HEAD_FOLDER, dirs_exist_ok=True)
