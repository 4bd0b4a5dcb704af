"""A model's own processor: loaded once, asked what an image becomes, and whether it can take one at all.

Answered without touching a pixel where the processor can tell.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer, GenerationConfig

from workers.given_files import UnusableFile, read_json
from workers.models.adapters import adapter_for
from workers.models.folder import PROCESSOR_FILES, read_model_config

_LEAST, _MOST = "shortest_edge", "longest_edge"
"""What the processors that resize by a number of pixels call their bounds, in pixels and not edges."""
_SAID_CHARS = 120
_GENERATION = "generation_config.json"
_SMALL_FILES = (
    "config.json", _GENERATION, "tokenizer_config.json", "special_tokens_map.json", *PROCESSOR_FILES,
    "chat_template.json",
)  # fmt: skip
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
        ValueError: in one sentence that names the file, or with transformers' own words.
    """
    for file in (Path(path) / name for name in _SMALL_FILES):
        if file.exists():
            _check_json(file)
    try:
        AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        processor = load_processor(path, trust_remote_code=trust_remote_code)
        missing = [name for name in ("tokenizer", "image_processor") if getattr(processor, name, None) is None]
        if (Path(path) / _GENERATION).is_file():
            GenerationConfig.from_pretrained(path)
    except Exception as error:  # Whatever a library makes of somebody's files, down to a KeyError.
        said = " ".join(str(error).split())[:_SAID_CHARS]
        raise ValueError(
            f"{str(path)!r} has a configuration, processor or tokenizer that cannot be loaded: "
            f"{_culprit(path, trust_remote_code=trust_remote_code)}{type(error).__name__}: {said}"
        ) from error
    if missing:
        raise ValueError(f"{str(path)!r} has a processor without {' and '.join(missing)}")


def _check_json(file: Path) -> None:
    try:
        content = read_json(file)
    except UnusableFile as error:
        raise ValueError(f"{str(file)!r} {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(file)!r} holds no JSON object")


def _culprit(path: str | Path, *, trust_remote_code: bool) -> str:
    """Which file is at fault, where what is read from it alone cannot be loaded either."""
    kinds: dict[str, Any] = {"config.json": AutoConfig, _GENERATION: GenerationConfig, "tokenizer.json": AutoTokenizer}
    for name, kind in kinds.items():
        try:
            if (Path(path) / name).is_file():
                kind.from_pretrained(path, trust_remote_code=trust_remote_code)
        except Exception:  # noqa: BLE001 - the error that is told has been met already
            return f"{name}: "
    return ""


def bounds_pixels(path: str | Path) -> bool:
    """Whether the processor in a model folder resizes by a number of pixels; others make tiles of a fixed size."""
    return adapter_for(str(read_model_config(path)["model_type"])).bounds_pixels


def fixed_side(path: str | Path, config: Any, *, trust_remote_code: bool = False) -> int | None:
    """Edge of what the tower sees of any image, pixels; None where that follows the image's own size.

    Args:
        config: The model's configuration.
    """
    side = getattr(getattr(config, "vision_config", None), "image_size", None)
    if not isinstance(side, int) or hasattr(config, "image_grid_pinpoints"):  # sizes that tiles are put together to
        return None
    processor = AutoImageProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    # Those that cut into tiles, or resize to a number of pixels, can say how many there are.
    return None if hasattr(processor, "get_number_of_image_patches") else side


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


def bound_beside(folder: str | Path) -> int | None:
    """The bound that an adapter was trained with, written beside it; None where its base's own held."""
    for file in (Path(folder) / name for name in PROCESSOR_FILES):
        if file.is_file():
            config = json.loads(file.read_text())
            size = config.get("image_processor", config).get("size") or {}
            if _MOST in size:
                return int(size[_MOST])
    return None


def _bounded(size: dict[str, Any], max_pixels: int) -> dict[str, int]:
    # An image below the least would be enlarged beyond the most.
    return {_LEAST: min(size[_LEAST], max_pixels), _MOST: max_pixels}


def image_expansions(processor: Any, config: Any, sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The ids that stand for each image of one prompt, without touching a pixel.

    Args:
        processor: The model's processor.
        config: The model's configuration.
        sizes: Height and width of every image of the prompt: some processors treat one alone otherwise than several.
    """
    if not sizes:
        return []
    adapter, token = adapter_for(config.model_type), config.image_token_id
    if adapter.qformer:
        return [[token] * config.num_query_tokens for _ in sizes]
    if adapter.image_facts is not None:
        spelled = [image_text(processor, config, size) for size in sizes]
        return [processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in spelled]
    if adapter.tiles_alone and len(sizes) > 1:
        counts = [_untiled(processor, len(sizes))] * len(sizes)
    else:
        counts = processor._get_num_multimodal_tokens(image_sizes=list(sizes))["num_image_tokens"]
    return [[token] * count for count in counts]


def image_text(processor: Any, config: Any, size: tuple[int, int]) -> str:
    """What a processor that writes more than placeholders writes for an image of this height and width."""
    facts = adapter_for(config.model_type).image_facts
    assert facts is not None
    return processor.replace_image_token(facts(processor, *size), 0)


def _untiled(processor: Any, num_images: int) -> int:
    # What _get_num_multimodal_tokens does not know; the call itself does, and asks no size for it.
    return processor.replace_image_token({"batch_num_images": [num_images]}, 0).count(processor.image_token)


def expand_placeholders(ids: Sequence[int], placeholder: int, expansions: Sequence[Sequence[int]]) -> list[int]:
    """Replace the i-th placeholder in ``ids`` by ``expansions[i]``.

    Raises:
        ValueError: the number of placeholders and of expansions differ.
    """
    if list(ids).count(placeholder) != len(expansions):
        raise ValueError(f"{list(ids).count(placeholder)} placeholders but {len(expansions)} images")
    remaining = iter(expansions)
    expanded: list[int] = []
    for token in ids:
        expanded.extend(next(remaining) if token == placeholder else [token])
    return expanded


_DOUBTFUL_RATIO, _DOUBTFUL_SIDE = 8, 28
"""Thinner or smaller images are tried: a processor may count them and still fail to resize them."""
_ASPECT = re.compile(r"aspect ratio must be smaller than (\d+)")
_REASON_CHARS = 120


class UnfitImageError(ValueError):
    """An image that the model's processor cannot take; reads ``image 1 is 1200 x 4: ...``."""

    def __init__(self, index: int, size: tuple[int, int], problem: str) -> None:
        super().__init__(index, size, problem)  # all, so that the error survives the way between processes
        self.index = index
        """Which of the prompt's images, from 0."""
        height, width = size
        self.problem = f"is {width} x {height}: {problem}"
        """The sentence without its subject, for whoever knows the image by its name."""

    def __str__(self) -> str:
        return f"image {self.index + 1} {self.problem}"


class Fitting:
    """The placeholders of a prompt's images, for one processor; remembers which sizes it can take."""

    def __init__(self, processor: Any, config: Any) -> None:
        self._processor, self._config = processor, config
        self._problems: dict[tuple[int, int], str | None] = {}

    def expansions(self, sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
        """As ``image_expansions``.

        Raises:
            UnfitImageError: the processor cannot take one of the sizes.
        """
        self.check(sizes)
        return image_expansions(self._processor, self._config, sizes)

    def check(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Stop at an image that the processor cannot take.

        Raises:
            UnfitImageError: naming it.
        """
        for index, size in enumerate(sizes):
            problem = self.problem(size)
            if problem is not None:
                raise UnfitImageError(index, size, problem)

    def problem(self, size: tuple[int, int]) -> str | None:
        """Why the processor cannot take an image of this height and width; None where it can."""
        if size not in self._problems:
            self._problems[size] = self._found_out(size)
        return self._problems[size]

    def _found_out(self, size: tuple[int, int]) -> str | None:
        height, width = size
        try:
            image_expansions(self._processor, self._config, [size])
            if max(size) > _DOUBTFUL_RATIO * min(size) or min(size) < _DOUBTFUL_SIDE:
                options = getattr(self._processor.valid_processor_kwargs, "_defaults", {}).get("images_kwargs", {})
                self._processor.image_processor(images=[Image.new("RGB", (width, height))], **options)
        except Exception as error:  # noqa: BLE001 - whatever a processor says, it cannot take this size
            return _told(error)
        return None


def _told(error: Exception) -> str:
    aspect = _ASPECT.search(str(error))
    if aspect is not None:
        return f"the model's processor takes at most {aspect[1]} : 1"
    words = " ".join(str(error).split()) or type(error).__name__
    return f"the model's processor cannot take it ({words[:_REASON_CHARS]})"
