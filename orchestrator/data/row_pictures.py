"""Pictures that stand in rows become files before a reader sees the row, named by their content.

A picture is ``{"bytes", "path"}``, bytes, text in base64, or an address ``data:image/...;base64,``; a video stands
there as bytes. Its file is in a folder of its own, so that it is written once however often the data are read.
"""

import base64
import binascii
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.data.content_files import written
from orchestrator.data.depth import TooDeep, shallow
from orchestrator.data.keys import is_picture_name
from orchestrator.data.rows import RowError, RowPicture, decoded, row_pictures
from orchestrator.data.videos import video_kind
from workers.multimodal.pictures import kind_of

FOLDER = "raylign_images"
"""Beside the media of a file, for the pictures that stand in it."""
_SHORTEST_BASE64 = 64
_BASE64 = re.compile(r"(data:image/[a-z0-9.+-]+;base64,)?([A-Za-z0-9+/\s]+={0,2}\s*)", re.IGNORECASE)
_ADDRESS = "data:image/"
_OF_A_PART = ("url", "path")
"""Keys under which a chat part names its picture, beside those that any picture has."""
_JSON_STARTS = ("[", "{")
_VIDEO_NAMES = ("video", "videos")


@dataclass(frozen=True, slots=True)
class RowPictures:
    """Where the pictures of rows are written."""

    folder: Path
    """Made where there are some."""

    def of_table(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of a table as decoded JSON would be, with names for its pictures.

        A column that names pictures beside one that holds as many is given the same names: what is in the row counts.

        Raises:
            RowError: a picture is none, or a field is nested too deeply.
            RefusedInput: the folder cannot be written.
        """
        return self._fields(row, of_table=True)

    def of_json(self, row: Any) -> Any:
        """The same of a row of JSON, whose other values stay as they are.

        Raises:
            RowError, RefusedInput: likewise.
        """
        if not isinstance(row, dict):
            return _walkable({"row": row})["row"]  # no field has a name
        return self._fields(row, of_table=False)

    def _fields(self, row: dict[str, Any], *, of_table: bool) -> dict[str, Any]:
        walkable = _walkable(row)
        return _beside_named({key: self._value(value, key, of_table=of_table) for key, value in walkable.items()})

    def _value(self, value: Any, key: str, *, of_table: bool) -> Any:
        if isinstance(value, str):
            return self._text(value, key)
        if isinstance(value, list):
            return [self._value(one, key, of_table=of_table) for one in value]
        if isinstance(value, dict):
            if set(value) == {"bytes", "path"}:
                return self._picture(value, key)
            # A struct has the keys of all rows; those that this one lacks are null in it.
            given = {name: one for name, one in value.items() if one is not None or not of_table}
            return {name: self._value(one, name, of_table=of_table) for name, one in given.items()}
        if isinstance(value, bytes):
            return self._file(value, key)
        return _plain(value) if of_table else value

    def _picture(self, value: dict[str, Any], key: str) -> Any:
        data = value["bytes"]
        if data is None:
            return value["path"]
        data = _decoded(data) if isinstance(data, str) else data
        return self._file(data, key) if isinstance(data, bytes) else value  # a reader says what it wanted

    def _text(self, text: str, key: str) -> Any:
        if is_picture_name(key) or key in _OF_A_PART:
            data = _decoded(text)
            if data is None and text[: len(_ADDRESS)].lower() == _ADDRESS:
                raise RowError(f"field {key!r} is a data: URI that holds no image of a kind that is read")
            return text if data is None else self._file(data, key)
        if _ADDRESS in text and text.lstrip().startswith(_JSON_STARTS):
            return self._inside(text, key)
        return text

    def _inside(self, text: str, key: str) -> Any:
        """A field that is a text of JSON with addresses in it; any other text as it is."""
        try:
            inside = decoded(text)
        except (ValueError, RecursionError):
            return text
        return self._value(_walkable({key: inside})[key], key, of_table=False)

    def _file(self, data: bytes, key: str) -> RowPicture:
        kind = video_kind(data) if key in _VIDEO_NAMES else kind_of(data)
        if kind is None:
            what = "video" if key in _VIDEO_NAMES else "image"
            raise RowError(f"field {key!r} holds {len(data)} bytes that are no {what} of a kind that is read")
        return RowPicture(written(self.folder, data, suffix=kind.lower()))


def _walkable(row: dict[str, Any]) -> dict[str, Any]:
    for key, value in row.items():
        try:
            shallow(value)
        except TooDeep as error:
            raise RowError(f"field {key!r} is {error}") from error
    return row


def _beside_named(row: dict[str, Any]) -> dict[str, Any]:
    held = [value for key, value in row.items() if row_pictures(value) and key not in _VIDEO_NAMES]
    if not held:
        return row
    for key, value in row.items():
        named = value if isinstance(value, list) else [value]
        beside = is_picture_name(key) and not row_pictures(value) and all(isinstance(name, str) for name in named)
        same = next((other for other in held if len(row_pictures(other)) == len(named)), None)
        if beside and same is not None:
            row[key] = same
    return row


def _decoded(text: str) -> bytes | None:
    """The picture that a text is in base64; None where it is something else."""
    found = _BASE64.fullmatch(text)
    if found is None or (found[1] is None and len(text) < _SHORTEST_BASE64):
        return None
    try:
        data = base64.b64decode("".join(found[2].split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if kind_of(data) is not None else None


def _plain(value: Any) -> Any:
    """A scalar as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    return str(value)  # dates, decimals: for people
