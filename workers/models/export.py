"""Writing a plain Hugging Face folder: weights under the released names, everything else copied."""

import json
import shutil
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from torch import Tensor

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_INDEX_MARK = ".index.json"
_TOKENIZER_MARK = "tokenizer_config.json"


def export_folder(tensors: dict[str, Tensor], *, source: str | Path, target: Path) -> None:
    """Write ``target`` so that transformers and vLLM load it like the folder ``source`` it came from.

    Args:
        tensors: Checkpoint name to whole tensor.
        source: The model folder whose configuration, tokenizer and processor are kept.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(Path(source).iterdir()):
        if file.is_file() and file.suffix not in _WEIGHT_SUFFIXES and not file.name.endswith(_INDEX_MARK):
            shutil.copyfile(file, target / file.name)
        elif (file / _TOKENIZER_MARK).is_file():  # a processor's second tokenizer
            shutil.copytree(file, target / file.name, dirs_exist_ok=True)
    config_file = target / "config.json"
    config = json.loads(config_file.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    config_file.write_text(json.dumps(config, indent=2) + "\n")
    save_torch_state_dict(tensors, target)
