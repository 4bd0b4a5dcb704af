"""From the bytes of an image file to the one picture that every role sees; what is no image is named for what it is."""

import contextlib
import io
import json
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

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


READ = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Formats that are read, by Pillow's names. It opens dozens, some through other programs (EPS starts Ghostscript):
untrusted files get only these."""
_HEAD_BYTES = 4096
_OURS = ((b"\x89PNG", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"BM", "BMP"), (b"GIF8", "GIF"))
_IMAGES = (
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"%!PS", "PostScript"), (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"\0\0\1\0", "ICO"), (b"\0\0\2\0", "CUR"), (b"8BPS", "Photoshop"), (b"qoif", "QOI"), (b"DDS ", "DDS"),
    (b"icns", "ICNS"), (b"v/1\1", "OpenEXR"), (b"#?RADIANCE", "Radiance HDR"), (b"\xd7\xcd\xc6\x9a", "WMF"),
    *((b"P%d%c" % (number, space), "PNM") for number in range(1, 8) for space in b"\n\r\t "),
)  # fmt: skip
_OTHERS = (
    (b"%PDF-", "a PDF document"), (b"PK\3\4", "a ZIP archive"), (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"Rar!", "a RAR archive"), (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"\x93NUMPY", "a NumPy array"), (b"PAR1", "a Parquet table"), (b"version https://git-lfs", "a git-lfs pointer"),
    (b"ID3", "an MP3 recording"), (b"\x7fELF", "a program"),
)  # fmt: skip
_AVIF, _HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def reason_not_read(data: bytes) -> str:
    """Why a file that does not decode is not read, as a sentence without its subject: ``is TIFF; read are ...``."""
    kind = kind_of(data)
    if kind is not None:
        return f"is not a readable image: a {kind} that is truncated or damaged"
    kind = _image_kind(data)
    if kind is not None:
        return f"is {kind}; read are {', '.join(READ)}"
    what = _other_kind(data)
    if what is None:
        return "is not a readable image"
    return f"is {what}, not {'the' if 'pointer' in what else 'an'} image"


def kind_of(data: bytes) -> str | None:
    """Which of ``READ`` the bytes begin like; None for none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return _starting_with(data, _OURS)


def _image_kind(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4]), _HEAD_BYTES)]
        if any(brand in brands for brand in _AVIF):
            return "AVIF"
        return "HEIC" if any(brand in brands for brand in _HEIC) else None
    head = data[:_HEAD_BYTES].lower()
    if b"<svg" in head and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<html" not in head:
        return "SVG"
    return _starting_with(data, _IMAGES)


def _other_kind(data: bytes) -> str | None:
    if not data:
        return "an empty file"
    if not data.strip(b"\0"):
        return "a file of zero bytes only"
    if data[4:8] == b"ftyp":
        return "an MP4 or QuickTime video"
    if data[:4] == b"RIFF":
        return {b"AVI ": "an AVI video", b"WAVE": "a WAV recording"}.get(data[8:12])
    return _starting_with(data, _OTHERS) or _text_kind(data)


def _text_kind(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    start = text[:_HEAD_BYTES].strip().lower()
    if start.startswith(("<!doctype html", "<html")) or "<html" in start:
        return "an HTML page"
    if start.startswith("<?xml"):
        return "XML text"
    if start.startswith(("{", "[")):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return "text"
        return "JSON"
    return "text" if all(c.isprintable() or c.isspace() for c in start) else None


def _starting_with(data: bytes, kinds: tuple[tuple[bytes, str], ...]) -> str | None:
    return next((kind for magic, kind in kinds if data.startswith(magic)), None)
