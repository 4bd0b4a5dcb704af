"""A model's own processor, with the bound on an image's pixels that a run gives it."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoProcessor

from workers.models.adapters import adapter_for
from workers.models.folder import PROCESSOR_FILES, read_model_config

_LEAST, _MOST = "shortest_edge", "longest_edge"
"""What the processors that resize by a number of pixels call their bounds, in pixels and not edges."""
_SAID_CHARS = 300
_OLDER_NAMES = {_LEAST: "min_pixels", _MOST: "max_pixels"}


def load_processor(path: str | Path, *, max_pixels: int | None = None, trust_remote_code: bool = False) -> Any:
    """The processor in a model folder.

    Args:
        max_pixels: A larger image is resized to at most so many, where the processor resizes by a number of pixels.
            None is its own bound.
    """
    processor: Any = AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    if max_pixels is not None and bounds_pixels(path):
        size = processor.image_processor.size
        processor.image_processor.size = type(size)(**_bounded(dict(size), max_pixels))
    return processor


def check_processor(path: str | Path, *, trust_remote_code: bool = False) -> None:
    """Check that the configuration, the processor and the tokenizer in a model folder can be loaded.

    Raises:
        ValueError: in one sentence, with transformers' own words.
    """
    try:
        AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        processor = load_processor(path, trust_remote_code=trust_remote_code)
        missing = [name for name in ("tokenizer", "image_processor") if getattr(processor, name, None) is None]
    except Exception as error:  # Whatever a library makes of somebody's files, down to a KeyError.
        said = " ".join(str(error).split())[:_SAID_CHARS]
        raise ValueError(
            f"{str(path)!r} has a configuration, processor or tokenizer that cannot be loaded: "
            f"{type(error).__name__}: {said}"
        ) from error
    if missing:
        raise ValueError(f"{str(path)!r} has a processor without {' and '.join(missing)}")


def bounds_pixels(path: str | Path) -> bool:
    """Whether the processor in a model folder resizes by a number of pixels; others make tiles of a fixed size."""
    return adapter_for(str(read_model_config(path)["model_type"])).bounds_pixels


def engine_options(
    path: str | Path, *, max_pixels: int | None, trust_remote_code: bool = False
) -> dict[str, dict[str, Any]]:
    """The same bound as vLLM takes it: options of the processor's calls."""
    if max_pixels is None or not bounds_pixels(path):
        return {}
    processor: Any = AutoImageProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    return {"images_kwargs": {"size": _bounded(dict(processor.size), max_pixels)}}


def write_bound(folder: Path, *, max_pixels: int) -> None:
    """Write the bound into the processor's files in ``folder``, so that whoever loads them makes the same pixels."""
    for file in (folder / name for name in PROCESSOR_FILES):
        if not file.is_file():
            continue
        config = json.loads(file.read_text())
        described = config.get("image_processor", config)
        older = {name: described[key] for name, key in _OLDER_NAMES.items() if described.get(key) is not None}
        size = (described.get("size") or {}) | older
        if _MOST not in size:
            continue  # a file of the two that says nothing of the image processor
        described["size"] = _bounded(size, max_pixels)
        described |= {_OLDER_NAMES[name]: described["size"][name] for name in older}
        file.write_text(json.dumps(config, indent=2) + "\n")


def _bounded(size: dict[str, Any], max_pixels: int) -> dict[str, int]:
    # An image below the least would be enlarged beyond the most.
    return {_LEAST: min(size[_LEAST], max_pixels), _MOST: max_pixels}
