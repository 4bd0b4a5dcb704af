"""Where metric rows go: one JSON line per step, and TensorBoard."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from orchestrator.metrics import metrics_row
from orchestrator.run_folder import RunFolder


class Sink(Protocol):
    """A destination of metric rows."""

    def write(self, step: int, row: Mapping[str, float | None]) -> None:
        """Take one row; None stands for a value that was not finite."""
        ...

    def close(self) -> None:
        """Flush and let go."""
        ...


class JsonlSink:
    """Appends to ``metrics.jsonl``; a row is on disk before the next step begins."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def write(self, step: int, row: Mapping[str, float | None]) -> None:
        """Append one row."""
        self._file.write(json.dumps({"step": step, **row}, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardSink:
    """Scalars for TensorBoard in the run folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # deferred: slow to import and optional

        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, row: Mapping[str, float | None]) -> None:
        """Add every finite value at ``step``."""
        for name, value in row.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class Tracker:
    """Writes each row to every sink."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one row.

        Raises:
            ValueError: a malformed metric name.
        """
        row = metrics_row(metrics)
        for sink in self._sinks:
            sink.write(step, row)

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()


@contextmanager
def open_tracker(folder: RunFolder, *, tensorboard: bool) -> Iterator[Tracker]:
    """The run's sinks, closed at the end of the block."""
    sinks: list[Sink] = [JsonlSink(folder.metrics)]
    if tensorboard:
        sinks.append(TensorBoardSink(folder.root / "tensorboard"))
    tracker = Tracker(sinks)
    try:
        yield tracker
    finally:
        tracker.close()
