"""What a model said about the items of a benchmark, kept row by row, so that a run that was cut goes on.

A prediction is known by the number of its row and the digest of what the row says, never by the row's id: ids repeat.
Shards appear whole; one that is there is never asked about again.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import RefusedInput
from orchestrator.run.folder import write_atomic

Status = Literal["answered", "failed"]
Key = tuple[int, str, int, str]
"""Row, digest, sample and order."""
FILE, _SHARDS = "predictions.parquet", "predictions"
_ASKED = "asked.json"
READING = "reading"
"""How verdicts are written, of ``verdict_readings.READINGS``, in what made the answers."""
_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("digest", pa.string()),
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("order", pa.string()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("rewards", pa.list_(pa.float64())),
        ("reply", pa.string()),
    ]
)
_NEEDED = [name for name in _SCHEMA.names if name not in ("rewards", "reply")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answer about one item."""

    row: int
    digest: str
    id: str = ""
    """As the file has it, for people."""
    sample: int = 0
    """0 is greedy; samples count from 1."""
    order: str = ""
    """In which the responses were shown, ``12`` or ``21``; empty where none are."""
    status: Status = "answered"
    text: str = ""
    finish_reason: str = ""
    rewards: tuple[float, ...] = ()
    """Of each response as the file lists them, from a reward model, or its mean log-prob, nats; NaN where there is
    none."""
    reply: str | None = None
    """What a judge said of the answer; None where none was asked."""

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.row, self.digest, self.sample, self.order


class Predictions:
    """Those of one model on one file in a folder, written shard by shard."""

    def __init__(self, folder: Path, *, asked: dict[str, object]) -> None:
        """
        Args:
            asked: What makes the answers these answers: the model and its weights' digest, the file's digest, template,
                sampling and seeds. JSON.
        Raises:
            RefusedInput: the folder holds answers of something else, or its files cannot be read.
        """
        self._folder = folder
        self.asked = asked
        self._shards = folder / _SHARDS
        self._shards.mkdir(parents=True, exist_ok=True)
        self._refuse_others(asked)
        self._done: set[Key] = set()
        self._num_shards = 0
        for one in self._every():
            if one.key in self._done and one.status == "answered":
                raise RefusedInput(f"{str(self._shards)!r} holds two answers to row {one.row}, sample {one.sample}")
            if one.status == "answered":
                self._done.add(one.key)

    def __contains__(self, key: Key) -> bool:
        """Whether there is an answer; one that failed is asked again."""
        return key in self._done

    def __len__(self) -> int:
        """Answers that are there."""
        return len(self._done)

    def current(self) -> list[Prediction]:
        """All that are there in the order of rows, the last of each key."""
        return sorted({one.key: one for one in self._every()}.values(), key=lambda one: one.key)

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Keep some more as one shard.

        Raises:
            ValueError: one of them is answered already, or two of them are of one key.
        """
        keys = [one.key for one in predictions]
        if len(set(keys)) < len(keys) or self._done & set(keys):
            raise ValueError("a prediction is kept once for each row, sample and order")
        if predictions:
            write_predictions(self._shards / f"{self._num_shards:06d}.parquet", predictions)
            self._num_shards += 1
            self._done |= {one.key for one in predictions if one.status == "answered"}

    def finish(self) -> Path:
        """Write all of them, in the order of rows, into one file, and return its path."""
        path = self._folder / FILE
        write_predictions(path, self.current())
        return path

    def _every(self) -> Iterator[Prediction]:
        shards = sorted(self._shards.glob("*.parquet"))
        self._num_shards = max((int(shard.stem) + 1 for shard in shards if shard.stem.isdecimal()), default=0)
        for shard in shards:
            yield from _read(shard)

    def _refuse_others(self, asked: dict[str, object]) -> None:
        path = self._folder / _ASKED
        text = json.dumps(asked, sort_keys=True, indent=1)
        if not path.exists():
            write_atomic(path, text)
            return
        now = json.loads(text)
        # Folders of before it was kept do not say how verdicts were written.
        before = {name: now[name] for name in (READING,) if name in now} | asked_in(self._folder)
        if before != now:
            keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
            (key, *_) = keys
            raise RefusedInput(
                f"{str(self._folder)!r} holds answers made with {key} = {before.get(key)!r}, now it is"
                f" {now.get(key)!r}: name another folder"
            )


def asked_in(folder: Path) -> dict[str, Any]:
    """What made the answers in a folder; nothing where it does not say.

    Raises:
        RefusedInput: it cannot be read as a JSON object.
    """
    path = folder / _ASKED
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RefusedInput(f"{str(path)!r} cannot be read as JSON") from error
    if not isinstance(found, dict):
        raise RefusedInput(f"{str(path)!r} holds no JSON object")
    return found


def forget_predictions(folder: Path) -> None:
    """Remove what is kept in a folder, so that everything is asked anew."""
    shutil.rmtree(folder / _SHARDS, ignore_errors=True)
    for name in (_ASKED, FILE):
        (folder / name).unlink(missing_ok=True)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write them as one table; the file appears whole."""
    write_table(path, predictions_table(list(predictions)))


def predictions_table(
    predictions: Sequence[Prediction], further: Mapping[str, Sequence[str]] | None = None
) -> pa.Table:
    """A row each.

    Args:
        further: Columns of text beside ours, which readers pass over.
    """
    columns = {name: [_cell(one, name) for one in predictions] for name in _SCHEMA.names}
    table = pa.Table.from_pydict(columns, schema=_SCHEMA)
    for name, values in (further or {}).items():
        table = table.append_column(name, pa.array(values, type=pa.string()))
    return table


def write_table(path: Path, table: pa.Table) -> None:
    """As Parquet; the file appears whole."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_atomic(path, buffer.getvalue().to_pybytes())


def read_predictions(path: Path) -> list[Prediction]:
    """Those of a finished file.

    Raises:
        RefusedInput: it is missing, or no such table.
    """
    if not path.is_file():
        raise RefusedInput(f"{str(path)!r} is not a file")
    return list(_read(path))


def digest_of(*says: object) -> str:
    """SHA-256 of values as JSON."""
    return hashlib.sha256(json.dumps(says, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _cell(one: Prediction, name: str) -> object:
    value = getattr(one, name)
    return list(value) if name == "rewards" else value


def _read(path: Path) -> Iterator[Prediction]:
    try:
        file = pq.ParquetFile(path)
        missing = [name for name in _SCHEMA.names if name not in file.schema_arrow.names]
        if missing:
            raise RefusedInput(f"{str(path)!r} has no column {missing[0]!r}: it holds no predictions")
        for batch in file.iter_batches(batch_size=1024, columns=_SCHEMA.names):
            for row in batch.to_pylist():
                if None in (row["rewards"] or ()) or any(row[name] is None for name in _NEEDED):
                    raise RefusedInput(
                        f"{str(path)!r} holds no predictions: row {row['row']} of the data lacks a value"
                    )
                yield Prediction(**{**row, "rewards": tuple(row["rewards"] or ())})
    except (pa.ArrowException, OSError) as error:
        raise RefusedInput(f"{str(path)!r} cannot be read as Parquet ({str(error).splitlines()[0]})") from error
