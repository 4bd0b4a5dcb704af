"""Reading a run folder as it stands, finished or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithms.figures import Figure
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics import MEMORY_PREFIX
from orchestrator.run.plain_files import UnreadableFile, json_value, read_plain

_NO_CURVES = ("time/", MEMORY_PREFIX)
_MOST_BYTES, _MOST_BYTES_OF_ROWS = 1 << 24, 1 << 28
_GREATEST = 1e100
"""What is greater is no figure that could be drawn or averaged: a square of it still has to be a number."""
Point = tuple[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a run folder says about its run."""

    folder: RunFolder
    config: Mapping[str, Any]
    """The resolved configuration; empty where the file is missing or broken."""
    manifest: Mapping[str, Any]
    """Versions, seeds and sizes; empty likewise."""
    rows: tuple[Mapping[str, Any], ...]
    """Rows of ``metrics.jsonl`` in step order, one a step."""
    left_out: tuple[str, ...] = ()
    """What in the folder could not be used, and why, a sentence each."""

    @property
    def figures(self) -> list[Figure]:
        """What the run's figures are, as its manifest says; where it does not, each of its rows is one by itself."""
        told = self.manifest.get("figures")
        if isinstance(told, list):
            return [Figure(**figure) for figure in told if _is_figure(figure)]
        return [
            Figure(name, "", title=name) for name in self.names("") if "/" in name and not name.startswith(_NO_CURVES)
        ]

    def series(self, name: str) -> list[Point]:
        """``(step, value)`` of every row that has a finite number under ``name``, none beyond 1e100."""
        points = [(row["step"], row.get(name)) for row in self.rows]
        return [(step, value) for step, value in points if isinstance(value, int | float) and abs(value) <= _GREATEST]

    def names(self, prefix: str) -> list[str]:
        """Names of metrics that start with ``prefix``, in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name.startswith(prefix)))

    def setting(self, section: str, name: str) -> Any:
        """One option of the configuration; None where it is not there."""
        values = self.config.get(section)
        return values.get(name) if isinstance(values, dict) else None

    def figure_of(self, section: str, name: str) -> float | None:
        """One option that is a number that can be drawn; None where it is none."""
        value = self.setting(section, name)
        return value if isinstance(value, float) and abs(value) <= _GREATEST else None

    @property
    def algo(self) -> str:
        """The algorithm's name; ``run`` where nothing says it."""
        name = self.config.get("algo", self.manifest.get("algo"))
        return name if isinstance(name, str) else "run"

    @property
    def last_step(self) -> int:
        """The last step with a row; 0 before the first."""
        return self.rows[-1]["step"] if self.rows else 0


def _is_figure(value: object) -> bool:
    return (
        isinstance(value, dict)
        and {"name", "meaning"} <= value.keys() <= {"name", "meaning", "title", "label"}
        and all(isinstance(text, str) for text in value.values())
    )


def status(record: RunRecord) -> str:
    """How far the run is, in a sentence."""
    steps = record.setting("run", "steps")
    if not record.rows:
        return "No step is finished yet."
    if not isinstance(steps, int):
        return f"{record.last_step} steps; the configuration is missing, so the planned number is not known."
    if record.last_step >= steps:
        return f"Finished: {steps} of {steps} steps."
    return f"Unfinished: {record.last_step} of {steps} steps. The same command continues it."


def holds_run(root: Path) -> bool:
    """Whether a folder is that of a run."""
    folder = RunFolder(root)
    return folder.config.is_file() or folder.metrics.is_file()


def read_run(root: Path) -> RunRecord:
    """Read the run in ``root``.

    Raises:
        RefusedInput: there is no such folder, or it is none of a run.
    """
    if not root.is_dir():
        raise RefusedInput(f"RUN_DIR {str(root)!r} is not a folder")
    if not holds_run(root):
        raise RefusedInput(f"RUN_DIR {str(root)!r} holds no run: neither config.json nor metrics.jsonl is in it")
    folder, left_out = RunFolder(root), list[str]()
    return RunRecord(
        folder=folder,
        rows=_read_rows(folder, left_out),
        config=_read_object(folder.config, left_out),
        manifest=_read_object(folder.manifest, left_out),
        left_out=tuple(left_out),
    )


def _read_rows(folder: RunFolder, left_out: list[str]) -> tuple[dict[str, Any], ...]:
    content = _content(folder.metrics, _MOST_BYTES_OF_ROWS, left_out)
    by_step: dict[int, dict[str, Any]] = {}
    num_torn = 0
    for line in content.splitlines():
        row = _row(line)
        if row is None:
            num_torn += 1
        else:
            by_step[row["step"]] = row
    if num_torn:
        left_out.append(f"{num_torn} torn lines of metrics.jsonl were left out.")
    return tuple(by_step[step] for step in sorted(by_step))


def _row(line: bytes) -> dict[str, Any] | None:
    """A row of a step; None of what a crash, or a write in progress, leaves."""
    try:
        row = json_value(line)
    except UnreadableFile:
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


def _read_object(path: Path, left_out: list[str]) -> dict[str, Any]:
    """The JSON object in a file of the run; empty where there is none."""
    content = _content(path, _MOST_BYTES, left_out)
    if not content:
        return {}
    try:
        value = json_value(content)
        if not isinstance(value, dict):
            raise UnreadableFile("holds no JSON object")
    except UnreadableFile as error:
        left_out.append(f"{path.name} {error}.")
        return {}
    return value


def _content(path: Path, most: int, left_out: list[str]) -> bytes:
    """What a file of the run holds; nothing where there is none, or where it is no file to be read."""
    if not path.exists() and not path.is_symlink():
        return b""
    try:
        return read_plain(path, most=most, inside=path.parent)
    except UnreadableFile as error:
        left_out.append(f"{path.name} {error}.")
        return b""
