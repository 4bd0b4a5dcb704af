"""What people give the service on its command line: shown on one line, opened only where it is a file, bounded."""

import os
import re
import stat
from pathlib import Path
from urllib.parse import urlsplit

SMALL = 2**20
"""Bytes of a file that a person writes."""
PICTURE = 2**29
"""Of an image."""
MOST_SHOWN = 270
_LEFT_OUT = " ... "
_VALUE = re.compile(r"(?<!\w)'(?:[^'\\]|\\.)*'|[^\s']{101,}")
_MOST_OF_A_VALUE, _MOST_LOOKED_AT = 80, 100_000
_LONGEST_HOST, _LONGEST_LABEL = 253, 63


def told(text: str) -> str:
    """A message on one line of a bounded length, long values cut, and spelled out what a terminal would obey."""
    line = " ".join(_cut(text, _MOST_LOOKED_AT).split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    if len(line) > MOST_SHOWN:
        line = _VALUE.sub(lambda found: _cut(found[0], _MOST_OF_A_VALUE), line)
    return _cut(line, MOST_SHOWN - len(_LEFT_OUT))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most * 2 // 3]}{_LEFT_OUT}{text[-(most // 3) :]}"


def read_bytes(path: Path, *, most: int) -> bytes:
    """The content of a regular file: a pipe or a device would be waited for, or never end.

    Raises:
        ValueError: it is none, is larger than ``most`` bytes, or cannot be read.
    """
    try:
        _refuse_other_kinds(os.stat(path), path)  # of a device even to open it may do something
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            _refuse_other_kinds(os.fstat(handle), path)
            data = b"" if os.fstat(handle).st_size > most else file.read(most + 1) or b""
            if os.fstat(handle).st_size > most or len(data) > most:
                raise ValueError(f"{str(path)!r} is larger than the {most} bytes that are read of such a file")
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    return data


def check_host(url: str, *, name: str) -> None:
    """Refuse an address that no request could be sent to. What stands in it may be a secret, so none of it is said.

    Args:
        name: The option that holds it.
    Raises:
        ValueError: naming the option.
    """
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{name} is no address: it holds a blank or a character that no address has")
    try:
        host, port = urlsplit(url).hostname or "", urlsplit(url).port
    except ValueError as error:
        raise ValueError(f"{name} is no address: its host or port cannot be read") from error
    labels = host.removesuffix(".").split(".")
    if len(host) > _LONGEST_HOST or not all(0 < len(label) <= _LONGEST_LABEL for label in labels if host):
        raise ValueError(f"{name} is no address: a host has at most {_LONGEST_HOST} characters")
    if port == 0:
        raise ValueError(f"{name} is no address: its port is 0")


def _refuse_other_kinds(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise ValueError(f"{str(path)!r} is not a file but {kind}")
