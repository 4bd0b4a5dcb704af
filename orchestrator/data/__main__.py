"""``python -m orchestrator.data {check,show,import,export} PATH``: look at people's files, and make stores of them."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from orchestrator.config.formats import DataFormat
from orchestrator.config.sections import DataSection
from orchestrator.data.counted import refuse_no_rows
from orchestrator.data.exporting import export_swift
from orchestrator.data.keys import Notes
from orchestrator.data.reading import SourceFile, read_records
from orchestrator.data.records import Instruction, Split
from orchestrator.data.rows import BadRow, row_uid, uid_parts
from orchestrator.data.showing import Oddities, Tally, instruction_lines
from orchestrator.data.store import PreferenceStore
from orchestrator.data.writer import import_file
from orchestrator.errors import RefusedInput

_DEFAULTS = DataSection()


@dataclass(frozen=True, kw_only=True)
class _Source:
    path: tyro.conf.Positional[str]
    """Data file, JSON or JSONL; check and show take the folder of a store as well."""
    media_root: str | None = None
    """Folder that every media path must stay inside; none = the folder of the data file."""
    max_pixels: int | None = _DEFAULTS.max_pixels
    """Largest image accepted, pixels."""
    video_frames: int = _DEFAULTS.video_frames
    """Frames read from each video."""

    reader: str | None = None
    """FILE.py:NAME of a function that reads a row of the file, in place of --format."""

    def source(self, format: DataFormat | None) -> SourceFile:
        """The file to be read.

        Raises:
            RefusedInput: a limit is below 1, or nothing says how the file is read.
        """
        read_by = self.reader or format
        if read_by is None:
            raise RefusedInput("--format is not set, nor is --reader")
        for name, value in (("--max-pixels", self.max_pixels), ("--video-frames", self.video_frames)):
            if value is not None and value < 1:
                raise RefusedInput(f"{name} = {value}: must be at least 1")
        file = Path(self.path)
        return SourceFile(
            path=file,
            read_by=read_by,
            media_root=file.parent if self.media_root is None else Path(self.media_root),
            max_pixels=self.max_pixels,
            video_frames=self.video_frames,
        )

    def store(self) -> PreferenceStore | None:
        """The store at ``path``; None where that is a file."""
        root = None if self.media_root is None else Path(self.media_root)
        return PreferenceStore(Path(self.path), media_root=root) if Path(self.path).is_dir() else None


@dataclass(frozen=True, kw_only=True)
class Check(_Source):
    """List every row that cannot be used, then a summary; exit code 2 when there is one."""

    format: DataFormat = _DEFAULTS.format
    """Format of the file."""


@dataclass(frozen=True, kw_only=True)
class Show(_Source):
    """Print one row as a model will see it."""

    row: int
    """1-based, in the data file: the line of a JSONL file, the element of a JSON array; of several that make an
    instruction, the first."""
    format: DataFormat = _DEFAULTS.format
    """Format of the file."""


@dataclass(frozen=True, kw_only=True)
class Import(_Source):
    """Write the good rows into a store, the bad ones into its quarantine.jsonl."""

    out: str
    """Folder of the store to be made."""
    format: DataFormat | None = None
    """Format of the file; none = it has a --reader."""
    held_out_frac: float = 0.0
    """Share of prompts that are held out, chosen by a hash of the prompt."""
    max_bad_frac: float = _DEFAULTS.max_bad_frac
    """Share of bad rows above which the file is refused."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the pairs of a store into a file, one a line."""

    store: tyro.conf.Positional[str]
    """Folder of the store."""
    out: tyro.conf.Positional[str]
    """JSONL file to be made."""
    format: Literal["swift"]
    """Names of the fields."""
    split: Split = "train"
    """Instructions to be written; the others are for another file."""
    media_root: str | None = None
    """Where the media are now; none = where they were at import."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 refused input or bad rows."""
    description = "Look at people's files, put them into a store, and write its pairs out again."
    commands = Check | Show | Import | Export
    command = tyro.cli(commands, prog="python -m orchestrator.data", args=argv, description=description)
    try:
        if isinstance(command, Check):
            return check(command)
        if isinstance(command, Export):
            return export(command)
        return show(command) if isinstance(command, Show) else import_(command)
    except RefusedInput as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        return 2


def check(command: Check) -> int:
    """Write every bad row and the summary; return 2 when a row of a file is bad, else 0.

    The bad rows of a store were accepted when it was made: they are listed and change no exit code.

    Raises:
        RefusedInput: the file or store cannot be read at all, or holds no row.
    """
    store = command.store()
    notes = Notes() if store is None else store.manifest.notes
    tally, odd = _counted(store or command.source(command.format), notes)
    refuse_no_rows(tally.num_good + tally.num_bad, name=command.path)
    _write([*tally.lines(), *notes.lines(), *odd.lines()])
    return 2 if tally.num_bad and store is None else 0


def show(command: Show) -> int:
    """Write one row; return 0.

    Raises:
        RefusedInput: the file or store cannot be read at all, the row is bad, or there is no such row.
    """
    store = command.store()
    if store is not None:
        uid = row_uid(Path(store.manifest.source_name), command.row)
        found, bad_rows, root = store.find(uid), store.bad_rows(), store.media_root
        total = store.manifest.notes.num_rows + len(bad_rows)
    else:
        source = command.source(command.format)
        found, bad_rows, total = _find(source, command.row)
        refuse_no_rows(total, name=command.path)
        root = source.media_root
    for bad in bad_rows:
        if bad.row == command.row:
            raise RefusedInput(f"row {bad.row}: {bad.reason}")
    if not found:
        raise RefusedInput(f"--row {command.row} is no row of {command.path!r}, which holds {total}")
    _write(line for instruction in found for line in instruction_lines(instruction, media_root=root))
    return 0


def import_(command: Import) -> int:
    """Make a store and write every bad row and what the store holds; return 0.

    Raises:
        RefusedInput: the file cannot be read at all, has too many bad rows, or the folder is not free.
    """
    # A chained comparison refuses NaN as well.
    if not 0 <= command.held_out_frac < 1:
        raise RefusedInput(f"--held-out-frac = {command.held_out_frac:g}: must be at least 0 and below 1")
    if not 0 <= command.max_bad_frac <= 1:
        raise RefusedInput(f"--max-bad-frac = {command.max_bad_frac:g}: must be from 0 to 1")
    source, out = command.source(command.format), Path(command.out)
    import_file(source, out=out, held_out_frac=command.held_out_frac, max_bad_frac=command.max_bad_frac)
    store = PreferenceStore(out)
    tally, odd = _counted(store, store.manifest.notes)
    _write([*tally.lines(), *store.manifest.notes.lines(), *odd.lines(), f"store   {command.out}"])
    return 0


def export(command: Export) -> int:
    """Write the pairs of a split and say how many they are; return 0.

    Raises:
        RefusedInput: the store cannot be read, an instruction does not fit the format, or the file is not free.
    """
    root = None if command.media_root is None else Path(command.media_root)
    store = PreferenceStore(Path(command.store), media_root=root)
    _write(export_swift(store, Path(command.out), split=command.split).lines())
    return 0


def _counted(source: PreferenceStore | SourceFile, notes: Notes) -> tuple[Tally, Oddities]:
    """Counts over all rows; the bad ones are written as they come."""
    is_file = isinstance(source, SourceFile)
    tally, odd = Tally(tell_images_apart=is_file), Oddities(compares_rows=is_file)
    for record in _records(source, notes):
        tally.add(record)
        if isinstance(record, BadRow):
            _write([f"row {record.row}: {record.reason}"])
        else:
            odd.add(record)
    return tally, odd


def _records(source: PreferenceStore | SourceFile, notes: Notes) -> Iterator[Instruction | BadRow]:
    if isinstance(source, SourceFile):
        yield from read_records(source, notes=notes)
    else:
        yield from source.bad_rows()
        yield from source.rows()


def _find(source: SourceFile, row: int) -> tuple[list[Instruction], list[BadRow], int]:
    """What the row became if it is good, every bad one, and how many rows there are in all."""
    uid, notes = row_uid(source.path, row), Notes()
    found: list[Instruction] = []
    bad_rows: list[BadRow] = []
    for record in read_records(source, notes=notes):
        if isinstance(record, BadRow):
            bad_rows.append(record)
        elif uid_parts(record.uid)[0] == uid:
            found.append(record)
    return found, bad_rows, notes.num_rows + len(bad_rows)


def _write(lines: Iterable[str]) -> None:
    """Write lines without the control characters that a terminal would obey."""
    for line in lines:
        sys.stdout.write("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
