"""Where metric rows go: one JSON line per step, and whichever trackers the run asks for."""

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Protocol
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics import metrics_row
from orchestrator.run.sample_table import COLUMNS, ShownSample, markdown, sheet

_SAMPLES = "eval/samples"
_ALARM = "alarm"
_WANDB_DATA = "WANDB_DATA_DIR"


class Sink(Protocol):
    """A destination of metric rows."""

    def write(self, step: int, row: Mapping[str, float | None]) -> None:
        """Take one row; None stands for a value that was not finite."""
        ...

    def show(self, step: int, samples: Sequence[ShownSample]) -> None:
        """Take a table of answers with their images."""
        ...

    def tell(self, step: int, words: str) -> None:
        """Take what people should be told of a step."""
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

    def show(self, step: int, samples: Sequence[ShownSample]) -> None:
        """Nothing: ``evaluations/`` has all of them."""

    def tell(self, step: int, words: str) -> None:
        """Nothing: ``log.jsonl`` has it."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardSink:
    """Scalars, and answers as text beside one picture, for TensorBoard in the run folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # deferred: slow to import and optional

        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, row: Mapping[str, float | None]) -> None:
        """Add every finite value at ``step``."""
        for name, value in row.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def show(self, step: int, samples: Sequence[ShownSample]) -> None:
        """The table as text, the images in its order as one picture."""
        self._writer.add_text(_SAMPLES, markdown(samples), step)
        if (picture := sheet(samples)) is not None:
            self._writer.add_image(_SAMPLES, np.asarray(picture), step, dataformats="HWC")

    def tell(self, step: int, words: str) -> None:
        """As text."""
        self._writer.add_text(_ALARM, words, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandbSink:
    """A run of Weights & Biases in the run folder; offline, to be sent with ``wandb sync`` whenever that is wanted."""

    def __init__(self, folder: Path) -> None:
        import wandb  # deferred: slow to import and optional

        folder.mkdir(exist_ok=True)
        # Images of tables wait there to be sent; its own place for them is in the user's home.
        self._set = {} if _WANDB_DATA in os.environ else {_WANDB_DATA: str(folder.resolve())}
        os.environ.update(self._set)
        # The same id after a resume, so that the parts of one run are one run there.
        self._run = wandb.init(
            dir=folder,
            project="raylign",
            name=folder.parent.name,
            id=_run_id(folder),
            mode="offline",
            resume="allow",
            settings=wandb.Settings(silent=True),  # a run's lines are the run's own
        )

    def write(self, step: int, row: Mapping[str, float | None]) -> None:
        """Log every finite value at ``step``."""
        self._run.log({name: value for name, value in row.items() if value is not None}, step=step)

    def show(self, step: int, samples: Sequence[ShownSample]) -> None:
        """A table with a column of images."""
        import wandb

        table = wandb.Table(columns=["image", *COLUMNS])
        for sample in samples:
            picture = sample.picture()
            table.add_data(None if picture is None else wandb.Image(picture), *sample.cells)
        self._run.log({_SAMPLES: table}, step=step)

    def tell(self, step: int, words: str) -> None:
        """As an alert, which is sent to whoever wants alerts of the project."""
        self._run.alert(title=f"{_ALARM} after step {step}", text=words)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
        for name in self._set:
            os.environ.pop(name, None)


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

    def show(self, step: int, samples: Sequence[ShownSample]) -> None:
        """The table as a text artifact, the images in its order as one picture."""
        place = f"{_SAMPLES}/step_{step:06d}"
        self._client.log_text(self._id, markdown(samples), f"{place}.md")
        if (picture := sheet(samples)) is not None:
            self._client.log_image(self._id, picture, f"{place}.png")

    def tell(self, step: int, words: str) -> None:
        """As a tag of the run."""
        self._client.set_tag(self._id, f"{_ALARM} after step {step}", words)

    def close(self) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self._id)


class TrackioSink:
    """A run of Trackio in its own place on this machine, ``TRACKIO_DIR``, where ``trackio show`` looks for all runs."""

    def __init__(self, folder: Path) -> None:
        import trackio  # deferred: slow to import and optional

        # A name for people, and what makes it this folder's: a resume goes on with the same run.
        name = f"{folder.parent.name}-{_run_id(folder)}"
        with redirect_stdout(io.StringIO()):  # a run's lines are the run's own
            self._run = trackio.init(
                project="raylign", name=name, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
            )

    def write(self, step: int, row: Mapping[str, float | None]) -> None:
        """Log every finite value at ``step``."""
        self._run.log({name: value for name, value in row.items() if value is not None}, step=step)

    def show(self, step: int, samples: Sequence[ShownSample]) -> None:
        """A table with a column of images."""
        import trackio

        pictures = [sample.picture() for sample in samples]
        rows = [
            [None if picture is None else trackio.Image(picture), *sample.cells]
            for sample, picture in zip(samples, pictures, strict=True)
        ]
        self._run.log({_SAMPLES: trackio.Table(columns=["image", *COLUMNS], data=rows)}, step=step)

    def tell(self, step: int, words: str) -> None:
        """As an alert of the dashboard."""
        self._run.alert("alarm", words, step=step)

    def close(self) -> None:
        """Write what waits."""
        with redirect_stdout(io.StringIO()):
            self._run.finish()


TRACKERS: Mapping[str, Callable[[Path], Sink]] = {
    "tensorboard": TensorBoardSink,
    "wandb": WandbSink,
    "mlflow": MlflowSink,
    "trackio": TrackioSink,
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

    def show(self, step: int, samples: Sequence[ShownSample]) -> None:
        """Show people a few answers."""
        for sink in self._sinks:
            sink.show(step, samples)

    def tell(self, step: int, words: str) -> None:
        """Tell people of something that has gone wrong."""
        for sink in self._sinks:
            sink.tell(step, words)

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
