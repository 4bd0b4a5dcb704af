"""Files that people name, opened: regular ones alone, of a bounded size, and never waited for.

A pipe, a device or a socket where a file is expected would be waited for, or never end; a file of the wrong kind can
be larger than memory. Whoever opens what a person named does it here.
"""

import json
import os
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from algorithms.settings import path_fault

SMALL = 2**20
"""Bytes of a file that a person writes: a configuration, a secret, a template."""
TABLE = 2**28
"""Of one that a program writes and that is read whole as text: an index, a tokenizer, facts."""
PICTURE = 2**29
"""Of an image: the most pixels that are decoded at all, uncompressed in sixteen bits and four colours, are less."""
_MOST_DEPTH = 64
_MOST_BITS = 1024
"""Of an integer; some tokenizers say 10^30 where they mean none."""
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnusableFile(ValueError):
    """Why a file cannot be used, as a sentence without its subject: ``is not a file but a pipe``."""


def read_bytes(path: str | Path, *, most: int) -> bytes:
    """The content of a regular file.

    Args:
        most: Bytes that are read; a larger file is refused, by its size before it is read.
    Raises:
        UnusableFile: it is not there, is no regular file, is too large or cannot be read.
    """
    if fault := path_fault(str(path)):
        raise UnusableFile(fault)
    try:
        _refuse_other_kinds(os.stat(path))  # of a device even to open it may do something
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            _refuse_other_kinds(status)
            _refuse_larger(status.st_size, most)
            data = file.read(most + 1) or b""
    except OSError as error:
        raise UnusableFile(f"cannot be read ({error.strerror or type(error).__name__})") from error
    _refuse_larger(len(data), most)  # it grows, or is one of the system's, which tell no size
    return data


def read_text(path: str | Path, *, most: int) -> str:
    """The content of a regular file of UTF-8 text, without a byte-order mark.

    Raises:
        UnusableFile: see ``read_bytes``, or it is no such text.
    """
    try:
        return read_bytes(path, most=most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableFile(f"is not UTF-8 text (byte {error.start})") from error


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a file that a person wrote.

    Raises:
        UnusableFile: see ``read_text``, or it is not TOML, nested deeply, or holds an integer that nobody could print.
    """
    return _parsed(read_text(path, most=SMALL), tomllib.loads, "TOML")


def read_json(path: str | Path, *, most: int = TABLE) -> Any:
    """What stands in a JSON file.

    Raises:
        UnusableFile: see ``read_text``, or it is not JSON, nested deeply, or holds an integer that nobody could print.
    """
    return _parsed(read_text(path, most=most), json.loads, "JSON")


def _parsed(text: str, parse: Callable[[str], Any], kind: str) -> Any:
    try:
        value = parse(text)
    except json.JSONDecodeError as error:
        raise UnusableFile(f"is not valid {kind} ({error.msg} at line {error.lineno})") from error
    except RecursionError as error:
        raise UnusableFile(f"is not usable {kind}: nested deeper than {_MOST_DEPTH} levels") from error
    except ValueError as error:  # of TOML, and of a number with more digits than Python reads
        raise UnusableFile(f"is not valid {kind}: {error}") from error
    _refuse_extremes(value, kind)
    return value


def _refuse_extremes(value: Any, kind: str) -> None:
    """Refuse what can be parsed and then not be shown: Python ends at a depth, and at a number of digits."""
    level = [value]
    for _ in range(_MOST_DEPTH):
        inside = [one for one in level if isinstance(one, dict | list)]
        for one in level:
            if isinstance(one, int) and one.bit_length() > _MOST_BITS:
                raise UnusableFile(f"is not usable {kind}: it holds an integer of {one.bit_length()} bits")
        level = [part for one in inside for part in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return
    raise UnusableFile(f"is not usable {kind}: nested deeper than {_MOST_DEPTH} levels")


def _refuse_other_kinds(status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "something else")
    raise UnusableFile(f"is not a file but {kind}")


def _refuse_larger(size: int, most: int) -> None:
    if size > most:
        raise UnusableFile(f"is larger than the {most} bytes that are read of such a file")
