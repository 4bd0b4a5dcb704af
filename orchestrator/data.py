"""``python -m orchestrator.data {check,show} PATH``: look at a data file before a run does."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from orchestrator.config.sections import DataSection
from orchestrator.datasets.dataset import Dataset, refuse_empty, row_uid
from orchestrator.datasets.registry import read_rows
from orchestrator.errors import RefusedInput
from workers.types import Prompt

_DEFAULTS = DataSection()


@dataclass(frozen=True, kw_only=True)
class _File:
    path: tyro.conf.Positional[str]
    """Data file, JSON or JSONL."""
    media_root: str | None = None
    """Folder that every media path must stay inside; none = the folder of the data file."""
    max_pixels: int = _DEFAULTS.max_pixels
    """Largest image accepted, pixels."""
    video_frames: int = _DEFAULTS.video_frames
    """Frames read from each video."""
    format: Literal["r1_reward"] = _DEFAULTS.format
    """Format of the file."""

    def read(self) -> Dataset:
        """Every row, good and bad."""
        for name, value in (("--max-pixels", self.max_pixels), ("--video-frames", self.video_frames)):
            if value < 1:
                raise RefusedInput(f"{name} = {value}: must be at least 1")
        dataset = read_rows(
            self.path,
            media_root=self.media_root,
            data_format=self.format,
            max_pixels=self.max_pixels,
            video_frames=self.video_frames,
        )
        refuse_empty(dataset, name=self.path)
        return dataset


@dataclass(frozen=True, kw_only=True)
class Check(_File):
    """List every row that cannot be used, then a summary; exit code 2 when there is one."""


@dataclass(frozen=True, kw_only=True)
class Show(_File):
    """Print one row as a model will see it."""

    row: int
    """1-based: the line of a JSONL file, the element of a JSON array."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 refused input or bad rows."""
    description = "Look at a data file before a run does."
    command = tyro.cli(Check | Show, prog="python -m orchestrator.data", args=argv, description=description)
    try:
        return check(command) if isinstance(command, Check) else show(command)
    except RefusedInput as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        return 2


def check(command: Check) -> int:
    """Write every bad row and the summary; return 2 when a row is bad, else 0.

    Raises:
        RefusedInput: the file cannot be read at all, or holds no row.
    """
    dataset = command.read()
    for bad in dataset.bad_rows:
        sys.stdout.write(f"row {bad.row}: {bad.reason}\n")
    sys.stdout.write("\n".join(_summary(dataset)) + "\n")
    return 2 if dataset.bad_rows else 0


def show(command: Show) -> int:
    """Write one row; return 0.

    Raises:
        RefusedInput: the file cannot be read at all, the row is bad, or there is no such row.
    """
    dataset = command.read()
    for bad in dataset.bad_rows:
        if bad.row == command.row:
            raise RefusedInput(f"row {bad.row}: {bad.reason}")
    by_uid = {prompt.uid: prompt for prompt in dataset.prompts}
    uid = row_uid(Path(command.path), command.row)
    if uid not in by_uid:
        total = len(dataset.prompts) + len(dataset.bad_rows)
        raise RefusedInput(f"--row {command.row} is no row of {command.path!r}, which holds {total}")
    sys.stdout.write("\n".join(_printable(line) for line in _row_lines(by_uid[uid])) + "\n")
    return 0


def _summary(dataset: Dataset) -> Iterator[str]:
    good, bad = len(dataset.prompts), len(dataset.bad_rows)
    yield f"rows    {good + bad}: {good} good, {bad} bad"
    yield f"images  {len({ref.sha256 for prompt in dataset.prompts for ref in prompt.media})} different"
    labels = Counter(prompt.label for prompt in dataset.prompts)
    yield f"labels  {labels['1']} say 1, {labels['2']} say 2"


def _row_lines(prompt: Prompt) -> Iterator[str]:
    yield f"uid    {prompt.uid}"
    yield f"label  {prompt.label}"
    media = iter(prompt.media)
    for turn in prompt.messages:
        yield f"{turn['role']}:"
        for part in turn["content"]:
            if part["type"] == "text":
                yield from (f"  {line}" for line in part["text"].split("\n"))
            else:
                ref = next(media)
                yield f"  [image {ref.path}, {ref.width} x {ref.height}]"
    if prompt.target is not None:
        yield "response:"
        yield from (f"  {line}" for line in prompt.target.split("\n"))


def _printable(line: str) -> str:
    """Replace control characters: a terminal would obey them."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


if __name__ == "__main__":
    sys.exit(main())
