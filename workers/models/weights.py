"""The weights of a model folder, looked at before anything is started: there, whole, and such as can be trained.

Reads the index and the headers of the files, never the tensors.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def check_weights(root: Path, config: dict[str, Any], *, trained: bool) -> None:
    """Check the files that transformers would load.

    Args:
        config: The folder's ``config.json``.
        trained: The weights are to be trained, which quantised ones cannot be.
    Raises:
        ValueError: what is missing, damaged or of no use, in one sentence.
    """
    if trained and (method := _quantization(config)) is not None:
        raise ValueError(f"{str(root)!r} is quantised ({method}): weights that are to be trained must not be")
    if (root / _WEIGHTS).is_file():
        _tensors_in(root / _WEIGHTS)
    elif (root / _INDEX).is_file():
        _check_shards(root)
    elif _shards_without_index(root):
        raise ValueError(f"{str(root)!r} has weights in parts, but not {_INDEX}, which says what is where")
    else:
        raise ValueError(f"{str(root)!r} has no weights (neither {_WEIGHTS} nor {_INDEX})")


def refuse_pointer(file: Path) -> None:
    """Stop at a file that git-lfs has not fetched.

    Raises:
        ValueError: naming it.
    """
    if file.is_file():
        with file.open("rb") as opened:
            if opened.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise ValueError(f"{str(file)!r} is a git-lfs pointer, not the file itself; git lfs pull fetches it")


def _quantization(config: dict[str, Any]) -> str | None:
    """How the weights are stored in fewer bits; None where they are not."""
    for part in (config, config.get("text_config")):
        described = part.get("quantization_config") if isinstance(part, dict) else None
        if described:
            return str(described.get("quant_method", "unknown method")) if isinstance(described, dict) else "?"
    return None


def _check_shards(root: Path) -> None:
    refuse_pointer(root / _INDEX)
    try:
        shards: dict[str, str] = json.loads((root / _INDEX).read_text())["weight_map"]
        wanted = {shard: {name for name, at in shards.items() if at == shard} for shard in sorted(set(shards.values()))}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(root / _INDEX)!r} is not an index of weights (no 'weight_map' of names)") from error
    for shard in wanted:
        if Path(shard).name != shard or not (root / shard).is_file():
            raise ValueError(f"{str(root / shard)!r}, which the index names, is not there")
    for shard, names in wanted.items():
        file = root / shard
        if missing := sorted(names - _tensors_in(file)):
            raise ValueError(f"{str(file)!r} lacks {missing[0]!r}, one of {len(missing)} tensors the index says it has")


def _tensors_in(file: Path) -> set[str]:
    refuse_pointer(file)
    try:
        # Its header must describe the file to the last byte: one that was cut, or is something else, is told here.
        with safe_open(file, framework="pt") as opened:
            names = set(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{str(file)!r} is not a whole safetensors file ({error})") from error
    if not names:
        raise ValueError(f"{str(file)!r} holds no tensors")
    return names


def _shards_without_index(root: Path) -> bool:
    return any(root.glob("model-*-of-*.safetensors"))
