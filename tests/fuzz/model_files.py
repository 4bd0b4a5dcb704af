"""Damages of the small files of a model folder: what a half copied, edited or hostile one holds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json",
         "preprocessor_config.json", "chat_template.jinja")  # fmt: skip
_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**9,
    10**30,
    1e308,
    "",
    "x",
    "\x1b[31m" * 100,
    [],
    [[]],
    {},
    {"a": {"b": 1}},
)
_RAW: dict[str, bytes] = {
    "empty": b"",
    "bytes": bytes(range(256)),
    "zeros": bytes(1000),
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "a long integer": b'{"a": ' + b"9" * 5000 + b"}",
    "an array": b"[]",
    "a text": b'"x"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half a character": b'{"a": "\xed\xa0\x80"}',
    "a template without an end": b"{% for m in messages %}",
    "a template that divides by nothing": b"{{ 1 / 0 }}",
    "a template that names nothing": b"{{ a.b.c }}",
    "a template that calls itself": b"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a template that refuses": b"{{ raise_exception('no') }}",
}


def damages(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Name of the damage, file, and what stands there then."""
    for name in FILES:
        file = folder / name
        for damage, content in _RAW.items():
            yield f"{name}: {damage}", name, content
        if not file.is_file():
            continue
        whole = file.read_bytes()
        for share in range(1, 8):
            yield f"{name}: cut at {share}/8", name, whole[: len(whole) * share // 8]
        if name.endswith(".json") and name != "tokenizer.json":
            described = json.loads(whole)
            yield from _edited(name, described, described, ())
        elif name == "tokenizer.json":
            described = json.loads(whole)
            for key in described:
                for odd in _ODD:
                    yield f"{name}: {key} = {odd!r:.20}", name, json.dumps({**described, key: odd}).encode()


def _edited(name: str, whole: Any, part: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, str, bytes]]:
    for key, value in part.items():
        where = ".".join((*above, key))
        for odd in _ODD:
            part[key] = odd
            yield f"{name}: {where} = {odd!r:.20}", name, json.dumps(whole).encode()
        part[key] = value
        if isinstance(value, dict):
            yield from _edited(name, whole, value, (*above, key))
