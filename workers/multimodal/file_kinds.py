"""What a file is by its first bytes, for a person who took it for an image."""

import json

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
    kind = _kind_of_ours(data)
    if kind is not None:
        return f"is not a readable image: a {kind} that is truncated or damaged"
    kind = _image_kind(data)
    if kind is not None:
        return f"is {kind}; read are {', '.join(READ)}"
    what = _other_kind(data)
    if what is None:
        return "is not a readable image"
    return f"is {what}, not {'the' if 'pointer' in what else 'an'} image"


def _kind_of_ours(data: bytes) -> str | None:
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
