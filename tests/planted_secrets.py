"""Whether a secret is anywhere in what a run left behind, also behind the compression of the files that it writes."""

import base64
import gzip
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq


def where_told(folder: Path, *secrets: str) -> list[str]:
    """Files below the folder that hold a secret, plain, percent-encoded, in hex or in base64, each with that secret."""
    return [
        f"{file.relative_to(folder)}: {secret}"
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.is_symlink()
        for secret in secrets
        if is_told(_text(file), secret)
    ]


def is_told(text: str, secret: str) -> bool:
    """Whether the text holds the secret in one of those forms."""
    return any(form in text for form in _forms(secret))


def _forms(secret: str) -> Iterator[str]:
    data = secret.encode()
    yield from (secret, quote(secret, safe=""), data.hex())
    for before in range(3):
        coded = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        yield coded[(0, 2, 3)[before] : -1]


def _text(file: Path) -> str:
    data = file.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data).decode("latin-1")
    if data.startswith(b"PAR1") and data.endswith(b"PAR1"):
        table = pq.read_table(file)  # pyright: ignore[reportUnknownMemberType]
        return f"{table.to_pylist()} {table.schema.metadata}"
    return f"{file} {data.decode('latin-1')}"
