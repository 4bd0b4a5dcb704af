"""A Hugging Face model folder seen from outside: validated before any process is started."""

import json
from pathlib import Path

from workers.models.adapters import ADAPTERS
from workers.models.weights import check_weights, refuse_pointer

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
REWARD_HEAD_FOLDER = "reward_head"
"""Beside a model's weights, not among them, so that transformers and vLLM load the folder as the plain model it is."""
REWARD_HEAD_CONFIG = f"{REWARD_HEAD_FOLDER}/config.json"

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_model_folder(path: str | Path, *, trust_remote_code: bool = False, trained: bool = True) -> dict[str, object]:
    """Check that ``path`` holds a supported model with its processor, tokenizer and weights; return its config.

    Reads only small JSON files and the headers of the weights, so a wrong folder is refused within milliseconds.

    Args:
        trained: The weights are to be trained, which quantised ones cannot be.
    Raises:
        ValueError: what is missing, damaged or unsupported, in one sentence.
    """
    config, root = check_model_config(path, trust_remote_code=trust_remote_code), Path(path)
    for kind, names in (("processor", PROCESSOR_FILES), ("tokenizer", _TOKENIZER_FILES)):
        found = [root / name for name in names if (root / name).is_file()]
        if not found:
            raise ValueError(f"{str(path)!r} has no {kind} (none of {', '.join(names)})")
        for file in found:
            refuse_pointer(file)
    check_weights(root, config, trained=trained)
    return config


def check_model_config(path: str | Path, *, trust_remote_code: bool = False) -> dict[str, object]:
    """Check that ``path`` describes a model of a supported architecture; return its config.

    Raises:
        ValueError: what is missing or unsupported, in one sentence.
    """
    config = read_model_config(path)
    adapter = ADAPTERS[str(config["model_type"])]
    if adapter.remote_code and not trust_remote_code:
        raise ValueError(
            f"{str(path)!r} has model_type {adapter.model_type!r}, whose code comes with the checkpoint and is run "
            "only with model.trust_remote_code = true"
        )
    described = config.get("text_config")
    text_model = described.get("model_type") if isinstance(described, dict) else None
    if adapter.text_models and text_model not in adapter.text_models:
        raise ValueError(
            f"{str(path)!r} has a language model of model_type {text_model!r}; {adapter.model_type} is supported "
            f"with: {', '.join(adapter.text_models)}"
        )
    return config


def has_reward_head(folder: Path) -> bool:
    """True where the model in ``folder`` gives rewards."""
    return (folder / REWARD_HEAD_CONFIG).is_file()


def critique_request(folder: Path) -> str:
    """What the critique reward model in ``folder`` was asked when it was trained.

    Raises:
        ValueError: it gives no rewards, or writes no critiques.
    """
    request = json.loads((folder / REWARD_HEAD_CONFIG).read_text())["request"] if has_reward_head(folder) else None
    if request is None:
        raise ValueError(f"{str(folder)!r} is no critique reward model (no request in {REWARD_HEAD_CONFIG})")
    return request


def read_model_config(path: str | Path) -> dict[str, object]:
    """The ``config.json`` of a model whose ``model_type`` has an adapter.

    Raises:
        ValueError: what is missing or unsupported, in one sentence.
    """
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"{str(path)!r} is not a folder")
    config_file = root / "config.json"
    if not config_file.is_file():
        hint = "; an adapter becomes a model by python -m orchestrator.export"
        raise ValueError(f"{str(path)!r} has no config.json" + hint * (root / ADAPTER_CONFIG).is_file())
    refuse_pointer(config_file)
    try:
        config = json.loads(config_file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{str(config_file)!r} is not valid JSON ({error.msg} at line {error.lineno})") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{str(config_file)!r} cannot be read as JSON ({type(error).__name__})") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type not in ADAPTERS:
        raise ValueError(f"{str(path)!r} has model_type {model_type!r}; supported: {', '.join(sorted(ADAPTERS))}")
    return config
