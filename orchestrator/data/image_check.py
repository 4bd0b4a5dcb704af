"""Which images the models of a run can take, asked of their processors before anything is started.

Readers and stores know files, not models: an image that decodes may still be too thin for one model's processor.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchestrator.config.schema import TrainConfig
from workers.models.adapters import adapter_for
from workers.models.folder import read_model_config

if TYPE_CHECKING:  # it imports transformers
    from workers.multimodal.processor import Fitting


class Measured(Protocol):
    """An image of a data set or of a store."""

    @property
    def path(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


class ImageCheck:
    """Says what is wrong with a row's images for any model of the run; loads no processor before there is an image."""

    def __init__(self, config: TrainConfig, *, root: Path | None = None) -> None:
        """
        Args:
            root: Images are named by their path under it, where they are there.
        """
        self._config, self._root = config, root

    def __call__(self, media: Iterable[Measured]) -> str | None:
        """Why a row with these images cannot be used; None where it can."""
        most = self._config.data.refused_above
        for image in media:
            size = f"{image.width} x {image.height} = {image.width * image.height} pixels"
            if most is not None and image.width * image.height > most:
                return f"image {self._named(image)} has {size}, more than data.max_pixels = {most}"
            for fitting in self._fittings:
                problem = fitting.problem((image.height, image.width))
                if problem is not None:
                    return f"image {self._named(image)} is {image.width} x {image.height}: {problem}"
        return None

    @cached_property
    def _fittings(self) -> list["Fitting"]:
        # Deferred: they import transformers, and most refusals can be had without.
        from transformers import AutoConfig

        from workers.models.adapter_folder import base_folder
        from workers.multimodal.processor import Fitting, load_processor

        trusted, bound = self._config.model.trust_remote_code, self._config.data.resized_above
        judge = self._config.judge_path
        own = None if judge is None else base_folder(judge)
        paths = dict.fromkeys(p for p in (self._config.model.path, own) if p is not None)
        return [
            Fitting(
                load_processor(path, max_pixels=bound, trust_remote_code=trusted),
                AutoConfig.from_pretrained(path, trust_remote_code=trusted),
            )
            for path in paths
        ]

    def _named(self, image: Measured) -> str:
        from workers.multimodal.media import shown_name  # deferred: it imports numpy and Pillow

        path, root = Path(image.path), self._root and self._root.resolve()
        return shown_name(str(path.relative_to(root)) if root and path.is_relative_to(root) else str(path))


def describe_bound(config: TrainConfig) -> list[str]:
    """What ``data.max_pixels`` does to this run's model where that is not what one would expect, in lines."""
    bound, path = config.data.resized_above, config.model.path
    if bound is None or path is None:
        return []
    model_type = str(read_model_config(path)["model_type"])
    if adapter_for(model_type).bounds_pixels:
        return []
    return [f"data.max_pixels = {bound} changes nothing: the processor of {model_type} makes tiles of its own size"]
