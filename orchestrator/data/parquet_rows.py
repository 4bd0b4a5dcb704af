"""Rows of Parquet files, as decoded JSON would be; pictures that stand in them become files before a reader sees them.

A picture is ``{"bytes", "path"}``, bytes, or text in base64. Its file is named by its content in a folder of its own,
so that it is written once however often the data are read.
"""

import base64
import binascii
import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.data.keys import is_picture_name
from orchestrator.data.rows import BadRow, JsonRow, RowError, RowPicture, row_pictures
from orchestrator.errors import RefusedInput
from workers.multimodal.pictures import kind_of

FOLDER = "raylign_images"
"""Beside the media of a file, for the pictures that stand in it."""
_MAGIC = b"PAR1"
_BATCH_ROWS = 64
_SHORTEST_BASE64 = 64
_BASE64 = re.compile(r"(?:data:image/[a-z.+-]+;base64,)?([A-Za-z0-9+/\s]+={0,2}\s*)")


def is_parquet(path: Path) -> bool:
    """By its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read_parquet_rows(path: Path, pictures: Path) -> Iterator[JsonRow | BadRow]:
    """Give every row in file order, numbered from 1.

    Args:
        pictures: Folder for those that stand in the rows; made where there are some.
    Raises:
        RefusedInput: the file cannot be read, or the folder cannot be written.
    """
    sink, number = _Pictures(pictures), 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS):
            for values in batch.to_pylist():
                number += 1
                try:
                    yield JsonRow(number, sink.written(values))
                except RowError as error:
                    yield BadRow(number, str(error))
    except (pa.ArrowException, OSError) as error:
        raise RefusedInput(
            f"data file {str(path)!r} cannot be read as Parquet ({str(error).splitlines()[0]})"
        ) from error


@dataclass(frozen=True, slots=True)
class _Pictures:
    folder: Path

    def written(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with names for its pictures.

        A column that names pictures beside one that holds as many is given the same names: what is in the row counts.
        """
        made = {key: self._value(value, key) for key, value in row.items()}
        held = [value for value in made.values() if row_pictures(value)]
        if held:
            for key, value in made.items():
                named = value if isinstance(value, list) else [value]
                beside = (
                    is_picture_name(key) and not row_pictures(value) and all(isinstance(name, str) for name in named)
                )
                same = next((other for other in held if len(row_pictures(other)) == len(named)), None)
                if beside and same is not None:
                    made[key] = same
        return made

    def _value(self, value: Any, key: str) -> Any:
        if isinstance(value, dict) and set(value) == {"bytes", "path"}:
            return value["path"] if value["bytes"] is None else self._file(value["bytes"], key)
        if isinstance(value, bytes):
            return self._file(value, key)
        if isinstance(value, str):
            data = _decoded(value) if is_picture_name(key) else None
            return value if data is None else self._file(data, key)
        if isinstance(value, list):
            return [self._value(one, key) for one in value]
        if isinstance(value, dict):
            # A struct has the keys of all rows; those that this one lacks are null in it.
            return {name: self._value(one, name) for name, one in value.items() if one is not None}
        return _plain(value, key)

    def _file(self, data: bytes, key: str) -> RowPicture:
        kind = kind_of(data)
        if kind is None:
            raise RowError(f"field {key!r} holds {len(data)} bytes that are no image of a kind that is read")
        path = self.folder / f"{hashlib.sha256(data).hexdigest()}.{kind.lower()}"
        try:
            if not path.is_file() or path.read_bytes() != data:  # it is read by its name: nobody may have changed it
                self.folder.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(f".{os.getpid()}.partial")
                partial.unlink(missing_ok=True)
                with partial.open("xb") as file:
                    file.write(data)
                partial.replace(path)
        except OSError as error:
            raise RefusedInput(f"pictures cannot be written into {str(self.folder)!r} ({error.strerror})") from error
        return RowPicture(path.resolve())


def _decoded(text: str) -> bytes | None:
    found = _BASE64.fullmatch(text) if len(text) >= _SHORTEST_BASE64 else None
    if found is None:
        return None
    try:
        data = base64.b64decode("".join(found[1].split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if kind_of(data) is not None else None


def _plain(value: Any, key: str) -> Any:
    """A scalar as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    return str(value)  # dates, decimals: for people
