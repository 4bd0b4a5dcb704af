"""Tiny files in the layouts that benchmarks are released in, made by hand."""

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from orchestrator.evaluation.benchmarks.files import ItemFile, Items, read_items
from orchestrator.evaluation.benchmarks.registry import benchmark_of


def png(shade: int) -> bytes:
    """A picture of its own for each shade."""
    out = io.BytesIO()
    Image.new("RGB", (12, 10), (shade, 40, 90)).save(out, "PNG")
    return out.getvalue()


def text_png(shade: int) -> str:
    """The same in base64."""
    return base64.b64encode(png(shade)).decode()


def cell(shade: int) -> dict[str, Any]:
    """The same as ``datasets`` keeps it in a table."""
    return {"bytes": png(shade), "path": None}


def save(path: Path, shade: int = 1) -> Path:
    """The same in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(shade))
    return path


def parquet(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def tsv(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter="\t", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def jsonl(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def whole(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def read(name: str, path: Path, *, root: Path | None = None, max_pixels: int | None = None) -> Items:
    """The items of a benchmark's file, its media beside it."""
    media_root = root or path.parent
    file = ItemFile(path=path, media_root=media_root, pictures=media_root / "pictures", max_pixels=max_pixels)
    return read_items(file, benchmark_of(name))
