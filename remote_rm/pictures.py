"""Pictures for reward functions: upright, on white, in eight bits, as the policy sees them.

Damaged files that the policy's own decoder still reads, and PNGs with one transparent colour, may differ.
"""

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps

_MOST_PIXELS = 89_478_485
_READ = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
_WHITE = (255, 255, 255)


def open_picture(data: bytes) -> Image.Image:
    """A file's picture: RGB, upright, on white where it is transparent; of an animation the first frame.

    Raises:
        ValueError: it has too many pixels.
        OSError: it is no picture.
    """
    with Image.open(io.BytesIO(data), formats=_READ) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f"a picture of {image.width} x {image.height} pixels is too large")
        image.load()
        with contextlib.suppress(Exception):  # tags that cannot be read turn nothing
            image = ImageOps.exif_transpose(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65_535) // 257).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            flat = Image.new("RGB", image.size, _WHITE)
            flat.paste(image, mask=image.getchannel("A"))
            return flat
        return image.convert("RGB")
