"""Files damaged as disks, copies and people damage them, drawn from a seed."""

import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 7, 2.5, 10**30, 10**400, float("nan"), float("inf"), "", "x", "../x", [], [1], {}, {"a": 1},
    "\x00",
)  # fmt: skip


def _flip(rng: random.Random, file: Path, others: Sequence[Path]) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def _cut(rng: random.Random, file: Path, others: Sequence[Path]) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: rng.choice((0, 1, len(data) // 2, len(data) - 1, rng.randrange(len(data))))])


def _zero(rng: random.Random, file: Path, others: Sequence[Path]) -> None:
    data = bytearray(file.read_bytes())
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((16, 512, 4096)))
    data[start:end] = bytes(end - start)
    file.write_bytes(data)


def _append(rng: random.Random, file: Path, others: Sequence[Path]) -> None:
    file.write_bytes(file.read_bytes() + rng.choice((b"\x00" * 99, b"}", b"{}\n", b"[" * 100_000, rng.randbytes(50))))


def _swap(rng: random.Random, file: Path, others: Sequence[Path]) -> None:
    other = rng.choice([one for one in others if one != file] or [file])
    kept = file.read_bytes()
    shutil.copyfile(other, file)
    other.write_bytes(kept)


def _recode(rng: random.Random, file: Path, others: Sequence[Path]) -> None:
    text = file.read_bytes().decode("latin-1")
    file.write_bytes(
        rng.choice((b"\xef\xbb\xbf" + text.encode("latin-1"), text.encode("utf-16"), text.encode("utf-32")))
    )


def _no_file(rng: random.Random, file: Path, others: Sequence[Path]) -> None:
    file.unlink()
    kind = rng.choice(("gone", "folder", "pipe", "loop", "null"))
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "loop":
        file.symlink_to(file.name)
    elif kind == "null":
        file.symlink_to(os.devnull)


def _json(rng: random.Random, file: Path, others: Sequence[Path]) -> None:
    """Another value somewhere in a JSON file, or in a line of one; a bit flipped in any other."""
    try:
        lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        which = rng.randrange(len(lines))
        value = json.loads(lines[which])
    except ValueError:
        _flip(rng, file, others)
        return
    kind = rng.choice(("value", "value", "value", "drop", "twice", "deep", "digits"))
    places = [*_places(value)]
    if kind == "twice" and isinstance(value, dict) and value:
        name = rng.choice([*value])
        lines[which] = json.dumps(value)[:-1] + f", {json.dumps(name)}: {json.dumps(rng.choice(_ODD))}}}"
    elif kind == "deep":
        lines[which] = "[" * 5000 + "]" * 5000
    elif kind == "digits":
        lines[which] = '{"step": ' + "9" * 5000 + "}"
    elif places:
        holder, key = rng.choice(places)
        if kind == "drop":
            del holder[key]
        else:
            holder[key] = rng.choice(_ODD)
        lines[which] = json.dumps(value)
    file.write_text("\n".join(lines) + "\n" * (file.suffix == ".jsonl"))


def _places(value: Any) -> list[tuple[Any, Any]]:
    inside = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in inside] + [place for _, one in inside for place in _places(one)]


DAMAGES: dict[str, Callable[[random.Random, Path, Sequence[Path]], None]] = {
    "flip": _flip, "cut": _cut, "zero": _zero, "append": _append, "swap": _swap, "recode": _recode, "no file": _no_file,
    "json": _json,
}  # fmt: skip


def damage(rng: random.Random, folder: Path, *, spared: Sequence[str] = ()) -> str:
    """Damage one file of a folder; say which and how.

    Args:
        spared: Endings of names that are left alone.
    """
    files = sorted(
        p for p in folder.rglob("*") if p.is_file() and p.stat().st_size and not p.name.endswith(tuple(spared))
    )
    file, kind = rng.choice(files), rng.choice([*DAMAGES])
    DAMAGES[kind](rng, file, files)
    return f"{kind} of {file.relative_to(folder)}"
