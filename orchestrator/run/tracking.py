"""Where metric rows go: one JSON line per step, and whichever trackers the run asks for."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import NAMESPACE_URL, uuid5

from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics import metrics_row


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


class WandbSink:
    """A run of Weights & Biases in the run folder; offline, to be sent with ``wandb sync`` whenever that is wanted."""

    def __init__(self, folder: Path) -> None:
        import wandb  # deferred: slow to import and optional

        folder.mkdir(exist_ok=True)
        # The same id after a resume, so that the parts of one run are one run there.
        self._run = wandb.init(
            dir=folder, project="raylign", name=folder.parent.name, id=_run_id(folder), mode="offline", resume="allow"
        )

    def write(self, step: int, row: Mapping[str, float | None]) -> None:
        """Log every finite value at ``step``."""
        self._run.log({name: value for name, value in row.items() if value is not None}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MlflowSink:
    """A run of MLflow in a file store in the run folder; a resume goes on with the same run."""

    def __init__(self, folder: Path) -> None:
        # Its authors would rather have a database; a folder needs no server and goes where the run goes.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.tracking import MlflowClient  # deferred: slow to import and optional

        self._client = MlflowClient(tracking_uri=folder.resolve().as_uri())
        found = self._client.get_experiment_by_name("raylign")
        experiment = found.experiment_id if found is not None else self._client.create_experiment("raylign")
        runs = self._client.search_runs([experiment])
        self._id = (runs[0] if runs else self._client.create_run(experiment, run_name=folder.parent.name)).info.run_id

    def write(self, step: int, row: Mapping[str, float | None]) -> None:
        """Log every finite value at ``step``."""
        for name, value in row.items():
            if value is not None:
                self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self._id)


TRACKERS: Mapping[str, Callable[[Path], Sink]] = {
    "tensorboard": TensorBoardSink,
    "wandb": WandbSink,
    "mlflow": MlflowSink,
}
"""Each takes the folder, named after it, that it may write to."""


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
def open_tracker(folder: RunFolder, *, trackers: Iterable[str]) -> Iterator[Tracker]:
    """The run's sinks, closed at the end of the block."""
    tracker = Tracker([JsonlSink(folder.metrics), *(TRACKERS[name](folder.root / name) for name in trackers)])
    try:
        yield tracker
    finally:
        tracker.close()


def _run_id(folder: Path) -> str:
    return uuid5(NAMESPACE_URL, str(folder.resolve())).hex[:12]
