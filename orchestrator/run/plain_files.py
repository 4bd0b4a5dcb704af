"""Reading files that somebody else may have laid where ours are expected: pipes, devices, links, files without end."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_DEEPEST = 40
_GREATEST = 1 << 63
_LONGEST_NUMBER = 20
"""Characters of the integers below ``_GREATEST``, a sign among them."""


class UnreadableFile(ValueError):
    """Why a file is not read, as a sentence without its subject: ``is no plain file``."""


@contextmanager
def open_plain(path: Path, *, most: int, inside: Path | None = None) -> Iterator[BinaryIO]:
    """A plain file to read from; what is none is not waited for.

    Args:
        most: Bytes that it may have.
        inside: Folder that it has to be in, links followed; None for anywhere.
    Raises:
        UnreadableFile: it is missing, no plain file, too large, or elsewhere.
    """
    try:
        if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
            raise UnreadableFile("is a link that leads out of its folder")
        _refuse_others(os.stat(path).st_mode)  # a device may do something when it is opened
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, a loop of links
        if isinstance(error, UnreadableFile):
            raise
        raise UnreadableFile(f"cannot be read: {getattr(error, 'strerror', None) or 'it is no usable path'}") from error
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        _refuse_others(found.st_mode)
        if found.st_size > most:
            raise UnreadableFile(f"has {found.st_size} bytes, more than {most}")
        yield file


def _refuse_others(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise UnreadableFile("is no plain file")


def read_plain(path: Path, *, most: int, inside: Path | None = None) -> bytes:
    """All bytes of a plain file; see ``open_plain``.

    Raises:
        UnreadableFile: likewise, or the disk does not give them.
    """
    with open_plain(path, most=most, inside=inside) as file:
        try:
            return file.read(most)
        except OSError as error:
            raise UnreadableFile(f"cannot be read: {error.strerror}") from error


def json_value(text: str | bytes) -> Any:
    """The JSON in a text of anybody's.

    Raises:
        UnreadableFile: it is none, nested deeper than ``40``, or holds an integer that no 64 bits hold.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise UnreadableFile("is nested too deeply") from error
    except ValueError as error:
        if isinstance(error, UnreadableFile):
            raise
        raise UnreadableFile("is no JSON") from error
    level, depth = [value], 0
    while level:
        if depth > _DEEPEST:
            raise UnreadableFile("is nested too deeply")
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        depth += 1
    return value


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER or not -_GREATEST <= int(digits) < _GREATEST:
        raise UnreadableFile(f"holds an integer of {len(digits)} characters, more than 64 bits")
    return int(digits)
