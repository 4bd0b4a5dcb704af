"""Numbers about responses that cost a model to make: reference log-probs, reward scores.

A table is keyed by a fingerprint of all that its numbers depend on; opened for any other it refuses, so that a stale
one is never used. It is made shard by shard, one for each row group of the store, by any process in any order:

    begin(shard) ──► temporary file ──► rename ──► line of shards.jsonl

A shard exists once its line does, so that a killed pass loses only the shards it was in; the line has a digest of its
file, and a shard whose line says none, as one that was torn, is made again. Float32 goes in and comes out
bit by bit. Several processes may write different shards at once; the first to open the table is the driver.
"""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from fcntl import LOCK_EX, flock
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import flush, write_atomic
from orchestrator.run.identity import Identity, option_identity, settled
from workers.models.digests import file_digest, model_digests
from workers.multimodal.pictures import PREPARATION

_SCHEMA = pa.schema([("uid", pa.string()), ("response_index", pa.int32()), ("values", pa.list_(pa.float32()))])
_TABLE_FILE = "table.json"
_SHARDS_FILE = "shards.jsonl"
_NOTHING = object()
_SECTIONS = ("model.", "data.", "batching.")
"""A new option in one of them counts unless it is named below."""
_LIMITS = ("data.max_prompt_tokens", "policy.tokens_per_microbatch")
_ELSEWHERE = (
    "data.format", "data.reader", "data.map", "data.facts", "data.held_out_frac",
    "model.freeze", "model.lora_rank", "model.lora_alpha",
)  # fmt: skip
"""The store's fingerprint tells the first five; the others are about training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """All that the numbers of a side table depend on."""

    store: str
    """``Manifest.fingerprint``: which responses."""
    model: Mapping[str, str]
    """Digest of each part of the model's folder."""
    settings: Mapping[str, Any]
    """Options that shape the numbers, e.g. the number format that workers compute in."""
    limits: Mapping[str, Any]
    """Options that decide which responses have numbers."""
    asked: str | None = None
    """What the model is asked beyond the store's prompts, and within which limits; None where it is asked nothing."""

    def parts(self) -> dict[str, Any]:
        """Everything by a name that tells a person what it is."""
        told = {"store": self.store, **self.model, **self.settings, **self.limits}
        return told if self.asked is None else told | {"asked": self.asked}


@dataclass(frozen=True, slots=True)
class Shard:
    """Values of every response of one row group of the store, in its order."""

    keys: list[tuple[str, int]]
    """Uid of the instruction, index of the response."""
    values: list[np.ndarray]
    """float32 ``[L]`` each: log-probs by token, or a score as one number."""


class SideTable:
    """A table on disk, whole or in the making."""

    def __init__(self, folder: Path, *, fingerprint: Fingerprint, num_shards: int) -> None:
        """Open a table, or begin one where there is none.

        Args:
            num_shards: ``len(store.groups)``.

        Raises:
            RefusedInput: the folder has a table of another fingerprint or number of shards; names each that differs.
        """
        self.folder, self.fingerprint, self.num_shards = folder, fingerprint, num_shards
        expected = {**fingerprint.parts(), "num_shards": num_shards}
        for name in (_TABLE_FILE, _SHARDS_FILE):
            if (folder / name).exists() and not (folder / name).is_file():
                raise RefusedInput(f"side table {str(folder)!r}: {name} in it is no plain file")
        path = folder / _TABLE_FILE
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(expected, indent=1))
            return
        stored = _read_json(path)
        names = dict.fromkeys([*expected, *stored])
        differs = [name for name in names if stored.get(name, _NOTHING) != expected.get(name, _NOTHING)]
        if differs:
            told = ", ".join(f"{name} is {stored.get(name)!r}, this run has {expected.get(name)!r}" for name in differs)
            raise RefusedInput(f"side table {str(folder)!r} was made for something else: {told}")

    def missing_shards(self) -> list[int]:
        """Numbers of the shards that nobody has finished yet, in order."""
        return sorted(set(range(self.num_shards)) - self._finished().keys())

    def begin(self, shard: int) -> "ShardWriter":
        """Start a shard; leaving the block finishes it, an exception forgets it.

        Raises:
            ValueError: there is no such shard.
        """
        if not 0 <= shard < self.num_shards:
            raise ValueError(f"shard = {shard}: must be from 0 to {self.num_shards - 1}")
        return ShardWriter(self, shard)

    def read(self, shard: int) -> Shard:
        """Read a finished shard.

        Raises:
            RefusedInput: it is not finished, or its file is damaged.
        """
        row = self._finished().get(shard)
        if row is None:
            raise RefusedInput(f"side table {str(self.folder)!r} lacks shard {shard} of {self.num_shards}")
        path = self.shard_file(shard)
        try:
            if file_digest(path).hex() != row["digest"]:
                told = f"{path.name!r} is not the file that {_SHARDS_FILE} speaks of"
                raise RefusedInput(f"side table {str(self.folder)!r}: {told}; remove the folder to make it again")
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                table = file.read(use_threads=False).combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise RefusedInput(f"side table {str(self.folder)!r}: {path.name!r} is missing or damaged") from error
        if table.num_rows != row["rows"] or table.schema != _SCHEMA:
            told = f"{path.name!r} has {table.num_rows} rows, {_SHARDS_FILE} says {row['rows']}"
            raise RefusedInput(f"side table {str(self.folder)!r}: {told}")
        keys = zip(table["uid"].to_pylist(), table["response_index"].to_pylist(), strict=True)
        return Shard(list(keys), _arrays(table["values"].combine_chunks()))

    def shard_file(self, shard: int) -> Path:
        """File of a shard."""
        return self.folder / f"shard-{shard:06d}.parquet"

    def append_row(self, row: dict[str, Any]) -> None:
        """Make a shard exist: its file is there already."""
        with (self.folder / _SHARDS_FILE).open("ab+") as file:
            flock(file, LOCK_EX)
            # A kill may have torn the line before: that one is ignored for good, this one must not be part of it.
            size = file.seek(0, os.SEEK_END)
            torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write((b"\n" if torn else b"") + json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _finished(self) -> dict[int, dict[str, Any]]:
        path = self.folder / _SHARDS_FILE
        rows = [_row(line) for line in path.read_bytes().split(b"\n")] if path.is_file() else []
        return {row["shard"]: row for row in rows if row is not None}


@dataclass(slots=True)
class ShardWriter:
    """One shard in memory until its block ends."""

    table: SideTable
    shard: int
    keys: list[tuple[str, int]] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def add(self, uid: str, response_index: int, values: np.ndarray) -> None:
        """Append one response, in the order of the store.

        Raises:
            ValueError: not a float32 vector; a conversion here would be a silent loss.
        """
        if values.dtype != np.float32 or values.ndim != 1:
            raise ValueError(f"values of {uid!r} are {values.dtype} with {values.ndim} dims, expected a float32 vector")
        self.keys.append((uid, response_index))
        self.values.append(values)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._commit()

    def _commit(self) -> None:
        lengths = [0, *(len(v) for v in self.values)]
        flat = np.concatenate(self.values) if self.values else np.empty(0, dtype=np.float32)
        offsets = pa.array(np.cumsum(lengths, dtype=np.int32))
        columns = [
            pa.array([uid for uid, _ in self.keys], pa.string()),
            pa.array([index for _, index in self.keys], pa.int32()),
            pa.ListArray.from_arrays(offsets, pa.array(flat, pa.float32())),
        ]
        path = self.table.shard_file(self.shard)
        # Two processes may be given one shard after a restart: each has its own temporary file.
        partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
        try:
            # A dictionary would hash the floats, which need not keep the bits of a NaN.
            pq.write_table(
                pa.Table.from_arrays(columns, schema=_SCHEMA), partial, use_dictionary=False, write_page_checksum=True
            )
            flush(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        flush(path.parent)
        self.table.append_row({"shard": self.shard, "rows": len(self.keys), "digest": file_digest(path).hex()})


def _arrays(values: pa.ListArray) -> list[np.ndarray]:
    flat, offsets = values.values.to_numpy(zero_copy_only=True), values.offsets.to_numpy()
    # Copies: a view of one response would keep the whole shard in memory.
    return [flat[start:end].copy() for start, end in pairwise(offsets)]


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of the shard list; None for one that a kill tore."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    told = row if isinstance(row, dict) else {}
    return told if type(told.get("shard")) is int and {"rows", "digest"} <= told.keys() else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RefusedInput(f"side table {str(path.parent)!r} has a {path.name} that is not JSON") from error
    if not isinstance(stored, dict):
        raise RefusedInput(f"side table {str(path.parent)!r} has a {path.name} that is no object")
    return stored


def table_fingerprint(
    config: TrainConfig, store: str, model: str, *, adapter: str | None = None, asked: str | None = None
) -> Fingerprint:
    """Of numbers that a model gives to a store's responses.

    Args:
        config: Of the run whose workers give them, with its number format settled.
        store: Its fingerprint; empty for responses that are in no store.
        model: Its folder.
        adapter: Folder of the one that it wears; None without any.
        asked: see ``Fingerprint``.
    """
    options = settled(option_identity(config))
    return Fingerprint(
        store=store,
        model=model_digests(model) | _of_adapter(adapter),
        settings={name: value for name, value in options.items() if _shapes(name)} | {"pictures": PREPARATION},
        limits=_some(options, *_LIMITS),
        asked=asked,
    )


def _of_adapter(folder: str | None) -> dict[str, str]:
    found = {} if folder is None else model_digests(folder)
    return {f"adapter's {part}": found[part] for part in ("weights", "config") if part in found}


def _shapes(name: str) -> bool:
    return name.startswith(_SECTIONS) and name not in (*_LIMITS, *_ELSEWHERE)


def _some(options: Identity, *names: str) -> Identity:
    return {name: options[name] for name in names}
