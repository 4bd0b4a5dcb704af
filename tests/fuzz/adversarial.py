"""Values that nobody should write and somebody will: for every kind of setting, as a flag and as TOML."""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DEEP = 5000


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a setting."""

    name: str
    words: tuple[str, ...] | None = None
    """On a command line; None where it cannot be written there."""
    toml: str | None = None
    """Behind a key's equals sign; None where it cannot be written there."""


def place_of(folder: Path) -> dict[str, str]:
    """Paths of every kind, made in a folder; devices by links, so that what is written over one is the link."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "folder").mkdir()
    (folder / "empty").write_bytes(b"")
    (folder / "bytes").write_bytes(bytes(range(256)) * 8)
    (folder / "text").write_text("words\n")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "huge").touch()
    os.truncate(folder / "huge", 9 * 2**30)  # holes: it takes no room
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to(folder / "gone")
    (folder / "loop").symlink_to(folder / "loop")
    for name, target in (("zero", "/dev/zero"), ("memory", "/proc/self/mem"), ("null", "/dev/null")):
        (folder / name).symlink_to(target)
    (folder / "unreadable").write_text("words\n")
    (folder / "unreadable").chmod(0)
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket is short
        try:
            made.bind("socket")
        finally:
            os.chdir(here)
    names = ["folder", "empty", "bytes", "text", "deep.json", "huge", "pipe", "dangling", "loop", "zero", "memory"]
    names += ["null", "unreadable", "socket", "gone"]
    return {name: str(folder / name) for name in names}


_TEXTS = {
    "empty": "",
    "blank": " ",
    "line ends": "\n\r\n\t",
    "none": "none",
    "None": "None",
    "umlaut": "ünï",
    "emoji": "🦖" * 3,
    "right to left": "a\u202eb",
    "NUL": "a\0b",
    "escape": "\x1b[31mred\x1b]0;title\x07",
    "100 kB": "x" * 100_000,
    "100 kB of words": "word " * 20_000,
    "100 kB of quotes": "'" * 100_000,
    "long name": "n" * 256,
    "long path": "d/" * 2100 + "f",
    "parents": "../" * 40,
    "format": "%s{0}{x!r}${HOME}",
    "markup": "[red]x[/red]",
    "flag": "--algo",
    "stage": "stage:nobody",
    "stage path": "stage:/../x",
    "file": "gone.py:Name",
    "columns": "prompt=problem",
    "columns twice": "a=b a=c",
    "function": "number?weight=nan",
    "function options": "number?weight=1&weight=2&" + "&".join(f"o{i}=1" for i in range(2000)),
    "criterion": "a?weight=1e999: words",
}
_NUMBERS = (
    "0", "1", "-1", "2", "3", "7", "+5", "0.5", "-0.0", "1e308", "1e-320", "-1e308", "1e999", "nan", "inf", "-inf",
    "1_000",
    "0x10", "2147483647", "2147483648", "4294967295", "4294967296", "9223372036854775807", "9223372036854775808",
    "1000000000", "1000000001", str(10**30), str(-(10**30)), "9" * 4300, "9" * 5000, "-" + "9" * 5000,
    "0." + "1" * 5000,
    "٣", "1 2", "1,2,3", "0.1,0.2", "true", "false", "True", "yes",
)  # fmt: skip
_ADDRESSES = (
    "abc", "http://", "http:///v1", "//h/v1", "ftp://h/v1", "file:///etc/hosts", "http://u:p@h/v1",
    "http://h/?q=1", "http://h/#f",
    "http://h:99999/v1", "http://h:0/v1", "http://h:-1/v1", "http://h:x/v1", "http://[::1/v1", "http://h o/v1",
    "http://h\n/v1",
    "http://\0/v1", "http://ü.example/v1", "HTTP://H/V1", "http://h..x/v1", f"http://{'h' * 300}/v1",
    f"http://{'h.' * 200}x/v1",
    f"http://h/{'p' * 100_000}", "https://127.0.0.1:1/v1",
)  # fmt: skip
_TOML = {
    "deep array": "[" * _DEEP + "]" * _DEEP,
    "array": "[[[[[[[[1]]]]]]]]",
    "deep table": "{a=" * _DEEP + "1" + "}" * _DEEP,
    "table": "{a = {b = {c = 1}}}",
    "no table": "{}",
    "no array": "[]",
    "3000 numbers": "[" + "1," * 3000 + "]",
    "texts": '["a", "b"]',
    "mixed": '[1, "a", true, 1.5, {a = 1}]',
    "dates": "1979-05-27T07:32:00Z",
    "hexadecimal": "0x" + "f" * 20_000,
    "tables": '[{name = "a"}, {path = 1}]',
    "columns": '{prompt = "problem", image = ""}',
    "number of columns": "{prompt = 1}",
    "nothing": "",
    "no end": '"',
}


def values(bounds: tuple[float, ...], places: dict[str, str]) -> Iterator[Value]:
    """Values of one setting.

    Args:
        bounds: Of its number; values at them and beside them come first.
        places: See ``place_of``.
    """
    for bound in bounds:
        for beside in (bound - 1, bound, bound + 1):
            text = str(int(beside)) if float(beside).is_integer() else repr(beside)
            yield Value(f"bound {text}", (text,), text)
    for text in _NUMBERS:
        yield Value(text[:20], (text,), text)
    for name, text in {**_TEXTS, **{f"address {one[:30]}": one for one in _ADDRESSES}}.items():
        yield Value(name, (text,), json.dumps(text))
    for name, path in places.items():
        yield Value(f"path {name}", (path,), json.dumps(path))
    for name, text in _TOML.items():
        yield Value(name, toml=text)
    yield Value("no value", ())
    yield Value("two words", ("a", "b"))
    yield Value("3000 words", ("1",) * 3000)
    yield Value("half a character", ("a\udc80",))
