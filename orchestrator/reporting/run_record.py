"""Reading a run folder as it stands, finished or not."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithms.figures import Figure
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics import MEMORY_PREFIX

_NO_CURVES = ("time/", MEMORY_PREFIX)
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
    num_torn_lines: int
    """Lines of ``metrics.jsonl`` that are no row: what a crash, or a write in progress, leaves."""

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
        """``(step, value)`` of every row that has a finite number under ``name``."""
        points = [(row["step"], row.get(name)) for row in self.rows]
        return [(step, value) for step, value in points if isinstance(value, int | float) and math.isfinite(value)]

    def names(self, prefix: str) -> list[str]:
        """Names of metrics that start with ``prefix``, in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name.startswith(prefix)))

    def setting(self, section: str, name: str) -> Any:
        """One option of the configuration; None where it is not there."""
        values = self.config.get(section)
        return values.get(name) if isinstance(values, dict) else None

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


def read_run(root: Path) -> RunRecord:
    """Read the run in ``root``.

    Raises:
        RefusedInput: there is no such folder, or it is none of a run.
    """
    if not root.is_dir():
        raise RefusedInput(f"RUN_DIR {str(root)!r} is not a folder")
    folder = RunFolder(root)
    if not folder.config.is_file() and not folder.metrics.is_file():
        raise RefusedInput(f"RUN_DIR {str(root)!r} holds no run: neither config.json nor metrics.jsonl is in it")
    rows, num_torn = _read_rows(folder.metrics)
    return RunRecord(
        folder=folder,
        config=_read_object(folder.config),
        manifest=_read_object(folder.manifest),
        rows=rows,
        num_torn_lines=num_torn,
    )


def _read_rows(path: Path) -> tuple[tuple[dict[str, Any], ...], int]:
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    parsed = [_parse(line, lambda value: isinstance(value.get("step"), int)) for line in lines]
    by_step = {row["step"]: row for row in parsed if row}
    return tuple(by_step[step] for step in sorted(by_step)), sum(not row for row in parsed)


def _read_object(path: Path) -> dict[str, Any]:
    return _parse(path.read_text(errors="replace"), lambda value: True) if path.is_file() else {}


def _parse(text: str, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The JSON object in ``text``; empty when it is broken, no object, or not wanted."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) and is_wanted(value) else {}
