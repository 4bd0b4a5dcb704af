"""Whether a model's processor can take an image of some size, told before one is made into pixels."""

import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from workers.multimodal.placeholders import image_expansions

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
        for index, size in enumerate(sizes):
            problem = self.problem(size)
            if problem is not None:
                raise UnfitImageError(index, size, problem)
        return image_expansions(self._processor, self._config, sizes)

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
