"""Rows of tables, as they stand in them: Parquet, and the Arrow files of a folder that ``datasets`` saved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import RefusedInput

_PARQUET, _ARROW = b"PAR1", b"ARROW1"
_BATCH_ROWS = 64
ARROW_SUFFIX = ".arrow"
"""An Arrow stream has no first bytes of its own."""


def is_table(path: Path) -> bool:
    """By its first bytes, or by the name that Arrow files have."""
    try:
        with path.open("rb") as file:
            return path.suffix == ARROW_SUFFIX or file.read(len(_PARQUET)) == _PARQUET
    except OSError:
        return False


def read_table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Give every row in file order.

    Raises:
        RefusedInput: the file cannot be read.
    """
    kind = "Arrow" if path.suffix == ARROW_SUFFIX else "Parquet"
    try:
        for batch in _arrow(path) if kind == "Arrow" else pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RefusedInput(
            f"data file {str(path)!r} cannot be read as {kind} ({str(error).splitlines()[0]})"
        ) from error


def _arrow(path: Path) -> Iterator[pa.RecordBatch]:
    """Mapped into memory and cut: a file may be one batch of any length."""
    with pa.memory_map(str(path)) as file:
        of_file = file.read(len(_ARROW)) == _ARROW
        file.seek(0)
        reader = pa.ipc.open_file(file) if of_file else pa.ipc.open_stream(file)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if of_file else reader
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield batch.slice(start, _BATCH_ROWS)
