"""A folder that holds an adapter and no model: what it says of itself and of its base, read without loading either."""

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from workers.given_files import UnusableFile, read_json
from workers.models.digests import model_digests
from workers.models.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS


def is_adapter(path: str | Path) -> bool:
    """True of a folder with an adapter alone."""
    root = Path(path)
    return (root / ADAPTER_CONFIG).is_file() and not (root / "config.json").is_file()


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """What was written about the adapter when it was saved.

    Raises:
        ValueError: it is no LoRA adapter, or does not name its base.
    """
    file = folder / ADAPTER_CONFIG
    try:
        config = read_json(file)
    except UnusableFile as error:
        raise ValueError(f"{str(file)!r} {error}") from error
    if (
        not isinstance(config, dict)
        or config.get("peft_type") != "LORA"
        or not isinstance(base := config.get("base_model_name_or_path"), str)
        or not base
    ):
        raise ValueError(f"{str(file)!r} does not describe a LoRA adapter and its base model")
    return config


def base_folder(path: str) -> str:
    """Folder of the model's weights, configuration and processor: of an adapter the base that it names, else ``path``.

    Raises:
        ValueError: see ``read_adapter_config``.
    """
    return str(read_adapter_config(Path(path))["base_model_name_or_path"]) if is_adapter(path) else path


def same_base(path: str, base: str) -> bool:
    """Whether what is in ``path``, a model or an adapter, stands on the model in ``base``, wherever that lies.

    Raises:
        ValueError: see ``read_adapter_config``.
    """
    own = Path(base_folder(path))
    if own.resolve() == Path(base).resolve():
        return True
    return own.is_dir() and model_digests(own)["weights"] == model_digests(base)["weights"]


def check_shape(path: str, *, rank: int, alpha: int) -> None:
    """Check that an adapter can be continued as one of ``rank`` and ``alpha``.

    Raises:
        ValueError: what it is instead, or that its weights are not there.
    """
    config = read_adapter_config(Path(path))
    for name, key, wanted in (("model.lora_rank", "r", rank), ("model.lora_alpha", "lora_alpha", alpha)):
        if config.get(key) != wanted:
            raise ValueError(f"{path!r} holds an adapter of {key} = {config.get(key)}, but {name} is {wanted}")
    num_weights(path)


def num_weights(path: str) -> int:
    """How many numbers an adapter has, by the header of its file.

    Raises:
        ValueError: the file is missing or broken.
    """
    file = Path(path) / ADAPTER_WEIGHTS
    try:
        with safe_open(file, framework="pt") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{str(file)!r} is not a whole safetensors file ({error})") from error
