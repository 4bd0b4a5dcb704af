"""Where metric rows go: one JSON line per step, and TensorBoard."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from orchestrator.run_folder import RunFolder


class Sink(Protocol):
    """A destination of metric rows."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take one row."""
        ...

    def close(self) -> None:
        """Flush and let go."""
        ...


class JsonlSink:
    """Appends to ``metrics.jsonl``; a row is on disk before the next step begins."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row; a value that is not finite is written as null."""
        row = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")
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

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add every finite value at ``step``."""
        for name, value in metrics.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class Tracker:
    """Writes each row to every sink."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one row."""
        for sink in self._sinks:
            sink.write(step, metrics)

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
