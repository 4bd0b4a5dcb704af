"""Rows of people's files, spoiled in one place each: what was done, and what nobody may do to them in silence.

A mutation is drawn from a seed. Its row is either refused by number, or read as it stands: every text of it is in what
was read, or its key is told; and whatever was changed changes what is read, is told, or says the same.
"""

import base64
import io
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from orchestrator.data.keys import Notes, is_empty
from orchestrator.data.reading import read_records
from orchestrator.data.records import Instruction
from orchestrator.data.rows import BadRow
from tests.unit.data.rows import picture, source

Row = dict[str, Any]
Place = tuple[str | int, ...]
Doing = Callable[[random.Random, Any, Place], str]
_ENCODED = ("message", "text")
"""Fields that may hold JSON as text."""
_PLACEHOLDER = re.compile(r"\n?<(?:image|video)>\n?")
_CODES = ("role", "from", "type", "ranking", "Rating", "models")
"""Keys whose texts are read and not copied: roles, ranks, ratings."""
_HUGE = 10**400
_KINDS = ("drop", "value", "value", "value", "rename", "wrap", "spelt", "mark", "double", "other", "extra")
_BASE64 = re.compile(r"(data:image/png;base64,)?[A-Za-z0-9+/=]{60,}")


def _png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (5, 3), "blue").save(out, "PNG")
    return out.getvalue()


_PICTURE = base64.b64encode(_png()).decode()
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, -1, 3.5, _HUGE, 2**63, float("nan"), float("inf"), "", " \n", "0", "1", "2", "true",
    "null", "NaN", [], {}, [[]], [None], {"a": 1}, "new words", "long " * 20_000, "half \ud800 pair", "nul \x00 inside",
    "<|im_end|>\n<|im_start|>assistant\n", "<image>", "<video>", "two <image><image>", "</s>", "a\u2028b", "\ufeffmark",
    "../a.png", "/etc/passwd", "a.png", "b.png", "gone.png", "clip", "broken.png", "empty.png", "pipe.png",
    "n" * 300 + ".png", "a\x00.png", "https://example.org/a.png", "file:///etc/passwd", "data:image/png;base64,",
    "data:image/png;base64," + _PICTURE,
    _PICTURE, _PICTURE[:-9], {"bytes": _PICTURE, "path": None}, {"bytes": "AAAA", "path": "a.png"}, {"url": "a.png"},
    ["a.png", "b.png"], [["a.png"]], "human", "gpt", "system", "tool", "USER", "assistant", "image", "video",
    "1>2", "2>1", "1=2", "1>1",
    "<answer>1</answer>", "<answer>2</answer>", "<answer>1</answer><answer>2</answer>", "{\"a\": 1}", "[1, 2",
)  # fmt: skip
KEYS = (
    "system", "history", "tools", "images", "image", "image_path", "rejected_images", "label", "score", "preference",
    "video", "videos", "objects", "rejected_response", "rejected_messages", "chosen", "rejected", "prompt", "question",
    "messages", "conversations", "answer", "solution", "response", "completion", "weight", "note", "id", "facts",
    "captions", "kto_tag", "ranking", "models", "source", "text", "value", "content", "role", "from",
    "a\ud800b", "k" * 5000, "",
)  # fmt: skip


def media_folder(root: Path) -> Path:
    """What rows may name: good pictures, a folder of frames, and what is no picture."""
    for name in ("a.png", "b.png", "clip/1.png", "clip/2.png"):
        picture(root / name, color="red" if name == "a.png" else "green")
    (root / "broken.png").write_bytes(_png()[:40])
    (root / "empty.png").touch()
    if not (root / "pipe.png").exists():
        os.mkfifo(root / "pipe.png")
    return root


@dataclass(frozen=True, slots=True)
class Mutation:
    """A row that was spoiled, and where."""

    row: Any
    told: str
    place: Place
    before: Any
    after: Any


def mutate(rng: random.Random, row: Row) -> Mutation:
    """The row with one thing done to it."""
    row = _decoded(row)
    whole = json.loads(json.dumps(row))
    place = rng.choice(list(_places(whole)))
    holder = whole
    for key in place[:-1]:
        holder = holder[key]
    before = json.loads(json.dumps(holder[place[-1]]))
    told, after = _spoil(rng, holder, place[-1], whole)
    return Mutation(_encoded(rng, row, whole), f"{told} at {place}", place, before, after)


def _spoil(rng: random.Random, holder: Any, key: str | int, whole: Row) -> tuple[str, Any]:
    kind = rng.choice(
        ("drop", "value", "value", "value", "rename", "wrap", "spelt", "mark", "double", "other", "extra")
    )
    value = holder[key]
    if kind == "drop":
        del holder[key]
        return "dropped", None
    if kind == "rename" and isinstance(holder, dict):
        name = rng.choice((*KEYS, f"{key}_2", str(key).upper(), f"my_{key}"))
        holder[name] = holder.pop(key)
        return f"renamed to {name[:20]!r}", value
    if kind == "extra" and isinstance(holder, dict):
        name, extra = rng.choice(KEYS), rng.choice(VALUES)
        holder[name] = extra
        return f"beside it {name[:20]!r}: {str(extra)[:40]!r}", extra
    if kind == "double" and isinstance(holder, list):
        holder.insert(int(key), json.loads(json.dumps(value)))
        return "twice", value
    new = value
    if kind == "wrap":
        new = rng.choice(
            ([value], {"value": value}, [value, value], [[value]], {"bytes": value, "path": None}, _deep(value))
        )
    elif kind == "spelt":
        new = rng.choice(
            (str(value), json.dumps(value), _number(value), value[::-1] if isinstance(value, list) else value)
        )
    elif kind == "mark" and isinstance(value, str):
        mark = rng.choice([one for one in VALUES if isinstance(one, str) and len(one) < 40])
        new = rng.choice((value + mark, mark + value, value[:2] + mark + value[2:]))
    elif kind == "other":
        new = json.loads(json.dumps(whole[rng.choice(list(whole))]))
    if new is value or kind == "value":
        new = rng.choice(VALUES)
    holder[key] = new
    return f"{kind} {str(new)[:40]!r}", new


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return -7


def _deep(value: Any) -> Any:
    for _ in range(200):
        value = [value]
    return value


def _places(value: Any, at: Place = ()) -> Iterator[Place]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*at, key)
        yield from _places(one, (*at, key))


def _decoded(row: Row) -> Row:
    found = dict(row)
    for name in _ENCODED:
        if isinstance(row.get(name), str) and row[name][:1] in ("[", "{"):
            found[name] = json.loads(row[name])
    return found


def _encoded(rng: random.Random, decoded: Row, whole: Row) -> Row:
    for name in _ENCODED:
        if name in whole and not isinstance(decoded.get(name), str) and rng.random() < 0.5 and name in decoded:
            whole[name] = json.dumps(whole[name])
    return whole


@dataclass(frozen=True, slots=True)
class Read:
    """What a file of one mutated row was read as."""

    found: tuple[Instruction, ...]
    bad: tuple[BadRow, ...]
    notes: Notes


def read_row(folder: Path, reader: str, row: Any, *, number: int = 0) -> Read:
    """Read a file of that row alone, as any command would."""
    file = folder / f"d{number}.jsonl"
    file.write_text(json.dumps(row) + "\n")
    notes = Notes()
    records = list(read_records(source(file, reader, media_root=folder), notes=notes))
    return Read(
        found=tuple(r for r in records if isinstance(r, Instruction)),
        bad=tuple(r for r in records if isinstance(r, BadRow)),
        notes=notes,
    )


def said(read: Read) -> list[Any]:
    """All of what was read that a model or a loss could see."""
    return [
        [r.messages, [m.sha256 for m in r.media], [(a.text, a.rank, a.score, a.critique, a.provenance, a.preferred_to,
         a.tied_with) for a in r.responses], r.meta]
        for r in read.found
    ]  # fmt: skip


_READ_OTHERWISE: dict[str, Callable[[Place], bool]] = {
    "llava_preference": lambda place: place[:1] == ("conversations",) and place[1:2] != (0,),  # outputs stand for it
    "mm_rlhf_pairs": lambda place: place == ("id",),  # which rows are one instruction
    # 1 where it is not given; and turns behind the first answer are told as not read.
    "llava_ppo": lambda place: place == ("caption_type",) or (place[0] == "conversations" and place[1:2] > (1,)),
    "r1_reward": lambda place: place[:1] == ("answer",),  # 1 or 2
}
"""By reader, where documented rules say what becomes of the words there."""


def altered(reader: str, mutation: Mutation, read: Read, base: Read) -> str | None:
    """What was changed in silence; None where nothing was."""
    keys = {name.rpartition(".")[2] for name in read.notes.unknown_keys}
    ruled = _READ_OTHERWISE.get(reader, lambda place: False)
    if lost := _lost(_decoded(mutation.row), read, keys, ruled):
        return f"lost {lost[0][:60]!r}"
    is_told = keys - {name.rpartition(".")[2] for name in base.notes.unknown_keys}
    same = is_told or ruled(mutation.place) or _means_the_same(mutation) or _was_said_twice(mutation, read)
    return None if same or said(read) != said(base) else "changes nothing"


def _was_said_twice(mutation: Mutation, read: Read) -> bool:
    """Whether all words that were taken out stand in what was read: the row had them once more."""
    words = {"before": mutation.before}
    has_words = any(_leaves(words, (), set()))
    return is_empty(mutation.after) and has_words and not _lost(words, read, set(), lambda place: False)


def _lost(row: Row, read: Read, told: set[str], ruled: Callable[[Place], bool]) -> list[str]:
    texts: list[str] = []
    _collect([said(read), [m.path for r in read.found for m in r.media]], texts)
    joined = "\x01".join(texts)
    leaves = [(place, leaf) for place, leaf in _leaves(row, (), told) if not (ruled(place) or _is_code(place))]
    return [leaf for _, leaf in leaves if not _stands_in(leaf, joined, read)]


def _is_code(place: Place) -> bool:
    return any(key in _CODES for key in place)


def _stands_in(leaf: str, joined: str, read: Read) -> bool:
    if leaf.strip() in joined or (_BASE64.fullmatch(leaf) and any(r.media for r in read.found)):
        return True
    pieces = [piece for piece in _PLACEHOLDER.split(leaf) if piece.strip()]
    return all(piece.strip() in joined for piece in pieces)


def _leaves(value: Any, at: Place, told: set[str]) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield at, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        if key not in told:
            yield from _leaves(one, (*at, key), told)


def _collect(value: Any, into: list[str]) -> None:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for one in value:
            _collect(one, into)
    elif value is not None:
        into.append(str(value))


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _means_the_same(mutation: Mutation) -> bool:
    before, after = mutation.before, mutation.after
    if mutation.place[0] == "models":  # vlfeedback names them once more beside its completions
        return True
    if is_empty(after) and ("beside it" in mutation.told or is_empty(before)):
        return True
    same = str(before).strip() == str(after).strip() or after == [before] or before == [after]
    return same or _parsed(before) == _parsed(after)
