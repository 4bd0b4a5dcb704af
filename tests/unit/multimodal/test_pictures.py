"""A file gives one picture, the one a person sees; or a reason that says what the file is."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps, PngImagePlugin
from vllm.multimodal.media import ImageMediaIO

from workers.multimodal.media import load_image, probe_image
from workers.multimodal.pictures import PictureError, decode, reason_not_read

_ORIENTATION = ExifTags.Base.Orientation
_TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""What each EXIF orientation asks for: rows and columns of the stored picture to those of the right one."""


def _noise(height: int, width: int, channels: int = 3, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _decoded(data: bytes) -> np.ndarray:
    return np.asarray(decode(data))


def _by_vllm(data: bytes) -> np.ndarray:
    return np.asarray(ImageMediaIO(image_mode="RGB").load_bytes(data).media)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_as_its_tag_asks_and_the_tag_is_gone(tmp_path: Path, kind: str, orientation: int) -> None:
    stored = np.kron(_noise(3, 5), np.ones((8, 8, 1), np.uint8))
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    options = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}[kind]
    file = tmp_path / f"a.{kind.lower()}"
    file.write_bytes(_file(Image.fromarray(stored), kind, exif=exif, **options))
    ref = probe_image(file)
    image = load_image(ref)
    wanted = _TURNED[orientation](stored)
    assert (ref.height, ref.width) == (image.height, image.width) == wanted.shape[:2]
    np.testing.assert_allclose(np.asarray(image), wanted, atol=12 if kind == "JPEG" else 0)
    assert np.array_equal(np.asarray(image), np.asarray(ImageOps.exif_transpose(image))) and not image.getexif()


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x09"]
)
@pytest.mark.parametrize("value", [None, 0, 9, 65535])
def test_tags_that_say_nothing_turn_nothing(exif: bytes, value: int | None) -> None:
    stored = _noise(4, 7)
    tags: Any = exif
    if value is not None:
        tags = Image.Exif()
        tags[_ORIENTATION] = value
    assert np.array_equal(_decoded(_file(Image.fromarray(stored), exif=tags)), stored)


def test_an_orientation_in_xmp_counts_as_in_vllm() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    data = _file(Image.fromarray(_noise(3, 5)), pnginfo=text)
    assert np.array_equal(_decoded(data), _by_vllm(data)) and decode(data).size == (3, 5)


def _drawing(mode: str, height: int, width: int, seed: int, *, tag: bool) -> bytes:
    pixels = _noise(height, width, 4, seed=seed)
    rgb = Image.fromarray(pixels[..., :3])
    if mode in ("RGBA", "LA"):
        return _file(Image.fromarray(pixels).convert(mode))
    if mode == "P":
        rgb = rgb.quantize(16)
        return _file(rgb, transparency=bytes([0, 128])) if tag else _file(rgb)
    if mode in ("L", "1"):
        return (
            _file(rgb.convert(mode), transparency=255 if mode == "1" else int(pixels[0, 0, 0]))
            if tag
            else _file(rgb.convert(mode))
        )
    if mode == "GIF":
        return _file(rgb.quantize(16), "GIF", **({"transparency": 3} if tag else {}))
    if mode == "WEBP":
        return _file(Image.fromarray(pixels), "WEBP", lossless=True)
    if mode == "CMYK":
        return _file(rgb.convert("CMYK"), "JPEG")
    if mode == "BMP":
        return _file(rgb, "BMP")
    return _file(rgb)


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(["RGB", "RGBA", "LA", "L", "1", "P", "GIF", "WEBP", "CMYK", "BMP"]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 5),
    tag=st.booleans(),
)
def test_a_picture_is_the_one_that_vllm_shows_a_served_model(
    mode: str, height: int, width: int, seed: int, tag: bool
) -> None:
    data = _drawing(mode, height, width, seed, tag=tag)
    image = decode(data)
    assert (image.mode, image.size) == ("RGB", (width, height))
    assert np.array_equal(np.asarray(image), _by_vllm(data))


def test_the_one_transparent_colour_of_a_picture_becomes_white() -> None:
    """vLLM's loader takes a picture that is RGB already as it is, this colour too."""
    stored = _noise(4, 7)
    stored[:, 0] = (9, 8, 7)
    found = np.asarray(decode(_file(Image.fromarray(stored), transparency=(9, 8, 7))))
    assert (found[:, 0] == 255).all() and np.array_equal(found[:, 1:], stored[:, 1:])


def _png(depth: int, colours: int, line: bytes, transparent: list[int], *, width: int) -> bytes:
    """One line of pixels, packed as a PNG has them, with the colour that stands for transparency."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colours, 0, 0, 0))
    rest = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) + chunk(
        b"IDAT", zlib.compress(b"\0" + line)
    )
    return b"\x89PNG\r\n\x1a\n" + head + rest + chunk(b"IEND", b"")


_DARK = bytes([0x12, 0x34] * 3)


@pytest.mark.parametrize(
    ("depth", "colours", "line", "transparent", "wanted"),
    [
        (1, 0, b"\x50", [0], [255, 255, 255, 255]),
        (1, 0, b"\x50", [1], [0, 255, 0, 255]),
        (2, 0, b"\x1b", [1], [0, 255, 170, 255]),
        (4, 0, b"\x05\xaf", [5], [0, 255, 170, 255]),
        (8, 0, bytes([0, 5, 170, 255]), [5], [0, 255, 170, 255]),
        (8, 0, bytes([0, 5, 170, 255]), [0x105], [0, 255, 170, 255]),
        (8, 2, bytes([0, 0, 0, 5, 5, 5, 170, 170, 170, 255, 255, 255]), [5, 5, 5], [0, 255, 170, 255]),
        (16, 2, bytes(6) + _DARK + b"\xaa" * 6 + b"\xff" * 6, [0x1234] * 3, [0, 255, 170, 255]),
        (16, 2, bytes(6) + _DARK + b"\xaa" * 6 + b"\xff" * 6, [0x3412] * 3, [0, 18, 170, 255]),
    ],
)
def test_the_transparent_colour_is_one_of_the_file_whatever_its_bits(
    depth: int, colours: int, line: bytes, transparent: list[int], wanted: list[int]
) -> None:
    found = _decoded(_png(depth, colours, line, transparent, width=4))
    assert found[0].tolist() == [[value] * 3 for value in wanted]


def test_tags_that_cannot_be_read_are_nothing_to_tell_a_user(tmp_path: Path) -> None:
    """A photo whose maker's tags are damaged is turned, without a word that names no file."""
    tags = struct.pack("<HHHIHHHHII", 2, 0x0112, 3, 1, 6, 0, 0x8769, 4, 1, 99999) + bytes(4)
    file = tmp_path / "a.jpg"
    file.write_bytes(_file(Image.fromarray(_noise(3, 5)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + tags))
    code = (
        "import sys\nfrom workers.multimodal.pictures import decode\nprint(decode(open(sys.argv[1], 'rb').read()).size)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("(3, 5)\n", "")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_white(mode: str) -> None:
    drawing = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    drawing.putpixel((1, 1), (0, 0, 0, 255))
    drawing.putpixel((2, 1), (0, 0, 0, 51))
    found = np.asarray(decode(_file(drawing.convert(mode))))
    wanted = np.full((2, 4, 3), 255)
    wanted[1, 1], wanted[1, 2] = 0, 204  # a fifth of black on white
    assert np.array_equal(found, wanted)


@given(values=st.lists(st.integers(0, 65535), min_size=1, max_size=50), transparent=st.none() | st.integers(0, 65535))
def test_grey_of_sixteen_bits_is_scaled(values: list[int], transparent: int | None) -> None:
    options: dict[str, Any] = {} if transparent is None else {"transparency": transparent}
    data = _file(Image.fromarray(np.array([values], np.uint16)), **options)
    wanted = [255 if v == transparent else round(v / 257) for v in values]
    assert np.asarray(decode(data))[0].tolist() == [[v] * 3 for v in wanted]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    "bulk",
    [
        _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 5_000_000)),
        _chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * 5_000_000)),
        _chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"a" * 5_000_000)),
        _chunk(b"tEXt", b"Comment\0" + b"a" * 5_000_000) * 16,
    ],
    ids=["zTXt", "iTXt", "iCCP", "many"],
)
@pytest.mark.parametrize("at_end", [False, True])
def test_a_long_comment_costs_no_picture(bulk: bytes, at_end: bool) -> None:
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    stored = _noise(4, 7)
    data = _file(Image.fromarray(stored), exif=exif)
    at = data.index(b"IEND") - 4 if at_end else 33
    assert np.array_equal(_decoded(data[:at] + bulk + data[at:]), _TURNED[6](stored))


def test_of_an_animation_the_first_frame_is_the_picture() -> None:
    frames = [Image.fromarray(_noise(6, 5, seed=seed)) for seed in range(3)]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        data = _file(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(_decoded(data), np.asarray(frames[0])), kind
    palette = [frame.quantize(8) for frame in frames]
    data = _file(palette[0], "GIF", save_all=True, append_images=palette[1:])
    assert np.array_equal(_decoded(data), np.asarray(palette[0].convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_cut_off_file_is_refused_wherever_it_was_cut(kind: str) -> None:
    data = _file(Image.fromarray(_noise(40, 40)), kind)
    for share in (0.02, 0.1, 0.5, 0.9):
        with pytest.raises(PictureError, match=f"^is not a readable image: a {kind} that is truncated or damaged$"):
            decode(data[: max(12, int(share * len(data)))])


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF"]), data=st.data())
def test_damage_gives_a_picture_or_a_reason(kind: str, data: st.DataObject) -> None:
    whole = bytearray(_file(Image.fromarray(_noise(9, 7)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(whole), max_pixels=10**6).mode == "RGB"
    except PictureError as error:
        assert "\n" not in str(error)


_AVIF_HEAD = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_file(Image.new("RGB", (3, 3)), "TIFF"), "is TIFF; read are PNG, JPEG, WEBP, BMP, GIF"),
        (_AVIF_HEAD, "is AVIF; read are PNG, JPEG, WEBP, BMP, GIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "is HEIC; read are PNG, JPEG, WEBP, BMP, GIF"),
        (b"\0\0\0\x20ftypmp42\0\0\0\0isommp42", "is an MP4 or QuickTime video, not an image"),
        (_file(Image.new("RGB", (3, 3)), "PPM"), "is PNM; read are PNG, JPEG, WEBP, BMP, GIF"),
        (_file(Image.new("RGB", (16, 16)), "ICO"), "is ICO; read are PNG, JPEG, WEBP, BMP, GIF"),
        (_file(Image.new("RGB", (3, 3)), "JPEG2000"), "is JPEG 2000; read are PNG, JPEG, WEBP, BMP, GIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n", "is PostScript; read are PNG, JPEG, WEBP, BMP, GIF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="a"/>', "is SVG; read are PNG, JPEG, WEBP, BMP, GIF"),
        (_file(Image.new("RGB", (3, 3)), "PDF"), "is a PDF document, not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "is a git-lfs pointer, not the image"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "is an HTML page, not an image"),
        (b"\n\n  <HTML><svg/></HTML>", "is an HTML page, not an image"),
        (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "is XML text, not an image"),
        (b'{"error": "not found"}', "is JSON, not an image"),
        (b"Too many requests\n", "is text, not an image"),
        (b"", "is an empty file, not an image"),
        (b"\0" * 99, "is a file of zero bytes only, not an image"),
        (b"\x1f\x8b\x08\0", "is a gzip archive, not an image"),
        (b"\x90\x91\xff" * 9, "is not a readable image"),
    ],
    ids=lambda v: v[:24] if isinstance(v, str) else "",
)  # fmt: skip
def test_what_is_no_image_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(PictureError) as caught:
        decode(content)
    assert str(caught.value) == reason


@given(st.binary(max_size=64))
def test_any_bytes_have_a_reason(content: bytes) -> None:
    assert reason_not_read(content).startswith("is ")
