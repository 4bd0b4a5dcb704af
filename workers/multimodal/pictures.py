"""From the bytes of a file to the one picture that everybody sees: upright, on white, eight bits a colour, no tags.

vLLM's loader is followed where it is right (orientation, transparency), because it shows a served model the picture;
Pillow's ``convert`` alone does neither, and clips 16-bit grey to white.
"""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from workers.multimodal.file_kinds import READ, reason_not_read

MOST_PIXELS = 89_478_485
"""Pixels above which no file is decoded, whatever the settings: a quarter of a GiB in three colours, and the number
above which Pillow takes a file for an attack on memory."""
PREPARATION = 3
"""Raised when the same bytes give other pixels, so that no table made of the earlier ones is taken for these."""
_WHITE = (255, 255, 255)
_ALPHA_MODES = ("RGBA", "LA", "PA")
_GREATEST_8, _GREATEST_16 = 255, 65_535
# What Pillow's decoders are known to raise on damaged files.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, EOFError, struct.error, zlib.error,
)  # fmt: skip
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AT = 24
"""Where the number of bits stands, in the one chunk that comes first."""
_BULKY_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_ORIENTING_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")

# What it says of tags that it cannot read names no file, and the picture is the same.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class PictureError(ValueError):
    """Why a file gives no picture, as a sentence without its subject: ``is TIFF; read are ...``."""


def decode(data: bytes, *, max_pixels: int | None = None) -> Image.Image:
    """The picture in a file: RGB, upright; of an animation the first frame.

    Args:
        max_pixels: Refuse more, before decoding; None is ``MOST_PIXELS``.
    Raises:
        PictureError: not an image of a format that is read, damaged, or of too many pixels.
    """
    try:
        return _decode(data, max_pixels)
    except _DECODE_ERRORS as error:
        if isinstance(error, PictureError):
            raise
        lean = without_bulk(data)
        if lean == data:
            raise PictureError(reason_not_read(data)) from error
    try:
        return _decode(lean, max_pixels)
    except _DECODE_ERRORS as error:
        raise error if isinstance(error, PictureError) else PictureError(reason_not_read(data)) from error


def _decode(data: bytes, max_pixels: int | None) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=READ) as image:
            _check_pixels(*image.size, max_pixels)
            image.load()
            if image.format == "PNG":
                _scale_transparent_colour(image, depth=data[_PNG_DEPTH_AT])
            return to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"is refused before decoding: {error}") from error


def _check_pixels(width: int, height: int, max_pixels: int | None) -> None:
    has = f"{width} x {height} = {width * height} pixels, more than"
    if width * height > MOST_PIXELS:
        raise PictureError(f"is refused before decoding: it has {has} {MOST_PIXELS}")
    if max_pixels is not None and width * height > max_pixels:
        raise PictureError(f"has {has} max_pixels = {max_pixels}")


def to_rgb(image: Image.Image) -> Image.Image:
    """An image as RGB: turned as its EXIF orientation asks and rid of the tag, laid on white where transparent."""
    with contextlib.suppress(Exception):  # tags that cannot be read turn nothing, as in vLLM
        image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, _WHITE)
        rgb.paste(image, mask=image.getchannel("A"))
    else:
        rgb = image.convert("RGB")
    rgb.info = {}  # an orientation left in it would turn the picture once more
    return rgb


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8, with alpha where one value stands for transparency."""
    values = np.asarray(image).astype(np.int64).clip(0, _GREATEST_16)
    grey = Image.fromarray(((values * _GREATEST_8 + _GREATEST_16 // 2) // _GREATEST_16).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _scale_transparent_colour(image: Image.Image, *, depth: int) -> None:
    """The one colour that stands for transparency in the numbers of the decoded pixels; Pillow leaves it in the file's.

    Of 16 bits in three colours Pillow decodes the upper 8, so that a colour which differs in the lower ones is taken
    for the same.
    """
    written = image.info.get("transparency")
    most = (1 << depth) - 1
    if image.mode == "L" and isinstance(written, int):
        image.info["transparency"] = (written & most) * _GREATEST_8 // most
    elif image.mode == "RGB" and isinstance(written, tuple):
        image.info["transparency"] = tuple((value & most) >> max(0, depth - 8) for value in written)


def without_bulk(data: bytes) -> bytes:
    """A PNG without comments and colour profile, whose size alone makes Pillow refuse a fine picture; else the same.

    Texts that may say how the picture stands are kept.
    """
    if not data.startswith(_PNG_START):
        return data
    return _PNG_START + b"".join(
        chunk for kind, chunk in _chunks(data) if kind not in _BULKY_CHUNKS or chunk[8:].startswith(_ORIENTING_TEXTS)
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and bytes of every chunk of a PNG; what is cut off comes as it is."""
    at = len(_PNG_START)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], data[at:end]
        at = end
