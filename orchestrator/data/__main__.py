"""``python -m orchestrator.data {check,show,import,export,judgements} PATH``: people's files, looked at and remade."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import tyro
from pydantic import ValidationError

from algorithms.settings import MOST
from orchestrator.command_line import ended, parsed, refuse_paths
from orchestrator.config.data_folders import is_store
from orchestrator.config.data_section import DataSection
from orchestrator.config.flags import column_pairs
from orchestrator.config.formats import DataFormat
from orchestrator.config.requests import OURS, request_in
from orchestrator.data.attempts import Chosen, read_attempts
from orchestrator.data.counted import refuse_bad_share, refuse_no_rows
from orchestrator.data.exporting import export_swift
from orchestrator.data.facts import FactFiles
from orchestrator.data.judgement_files import Images, Making, Orders, make_judgements, refuse_taken
from orchestrator.data.keys import Notes
from orchestrator.data.reading import read_records
from orchestrator.data.recognising import recognised
from orchestrator.data.records import Instruction, Split
from orchestrator.data.rows import BadRow
from orchestrator.data.shards import beside
from orchestrator.data.showing import row_lines, tally
from orchestrator.data.source_file import SourceFile
from orchestrator.data.store import PreferenceStore
from orchestrator.data.writer import import_file
from orchestrator.errors import RefusedInput, refusal

_DEFAULTS = DataSection()
_PATHS = ("path", "media_root", "reader", "facts", "out", "store", "template", "attempts")
"""Flags that name files or folders, of all commands."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    path: tyro.conf.Positional[str]
    """Data file, JSON, JSONL or Parquet, or a folder of its shards; check, show and judgements take a store, too."""
    media_root: str | None = None
    """Folder that every media path must stay inside; none = the folder of the data file."""
    max_pixels: int | None = _DEFAULTS.max_pixels
    """Largest image accepted, pixels."""
    video_frames: int = _DEFAULTS.video_frames
    """Frames read from each video."""

    reader: str | None = None
    """FILE.py:NAME of a function that reads a row of the file, in place of --format."""

    format: DataFormat | None = None
    """Format of the file; none = that which the keys of its rows tell."""
    map: tuple[str, ...] = ()
    """Columns of the file that have other names than the format reads: prompt=problem image=img."""
    facts: tuple[str, ...] = ()
    """JSON files of what is true of the samples, by the id of a row; every row must be in one."""

    def source(self, *, pictures: Path | None) -> SourceFile:
        """The file to be read.

        Args:
            pictures: see ``SourceFile``.
        Raises:
            RefusedInput: a limit is below 1, or nothing says how the file is read.
        """
        read_by, columns = self.reader or self.format, self._columns()
        if read_by is None:
            read_by = recognised(Path(self.path), columns=columns)
            _write([f"read as {read_by}"] if read_by else [])
        if read_by is None:
            raise RefusedInput("--format is not set, nor is --reader, and the keys of the rows are those of no format")
        for name, value in (("--max-pixels", self.max_pixels), ("--video-frames", self.video_frames)):
            if value is not None and value < 1:
                raise RefusedInput(f"{name} = {value}: must be at least 1")
            if value is not None and value > MOST:
                raise RefusedInput(f"{name} = {value}: must be at most {MOST}")
        file = Path(self.path)
        return SourceFile(
            path=file,
            read_by=read_by,
            media_root=beside(file) if self.media_root is None else Path(self.media_root),
            max_pixels=self.max_pixels,
            video_frames=self.video_frames,
            pictures=pictures,
            columns=columns,
            facts=FactFiles(tuple(map(Path, self.facts))),
        )

    def _columns(self) -> dict[str, str]:
        pairs = column_pairs(self.map, flag="--map")
        try:
            return DataSection.model_validate({"map": pairs}).map
        except ValidationError as error:
            raise refusal(error) from error

    def store(self) -> PreferenceStore | None:
        """The store at ``path``; None where that is a file.

        Raises:
            RefusedInput: facts are given, which a store has already.
        """
        if self.facts and is_store(self.path):
            raise RefusedInput(f"--facts is set, but the store {self.path!r} has the facts that it was made with")
        root = None if self.media_root is None else Path(self.media_root)
        return PreferenceStore(Path(self.path), media_root=root) if is_store(self.path) else None


@dataclass(frozen=True, kw_only=True)
class Check(_Source):
    """List every row that cannot be used, then a summary; exit code 2 when there is one."""

    def run(self) -> int:
        """Write every bad row and the summary. The bad rows of a store were accepted when it was made."""
        store = self.store()
        notes = Notes() if store is None else store.manifest.notes
        with TemporaryDirectory() as pictures:
            found = tally(store or self.source(pictures=Path(pictures)), notes, bad=_tell_bad)
        refuse_no_rows(found.num_good + found.num_bad, name=self.path)
        _write(found.lines(notes))
        return 2 if found.num_bad and store is None else 0


@dataclass(frozen=True, kw_only=True)
class Show(_Source):
    """Print one row as a model will see it."""

    row: int
    """1-based, in the data file: the line of a JSONL file, the element of a JSON array; of several that make an
    instruction, the first."""

    def run(self) -> int:
        """Write the row."""
        with TemporaryDirectory() as pictures:
            _write(row_lines(self.store() or self.source(pictures=Path(pictures)), self.row, name=self.path))
        return 0


@dataclass(frozen=True, kw_only=True)
class Import(_Source):
    """Write the good rows into a store, the bad ones into its quarantine.jsonl."""

    out: str
    """Folder of the store to be made."""
    held_out_frac: float = 0.0
    """Share of prompts that are held out, chosen by a hash of the prompt."""
    max_bad_frac: float = _DEFAULTS.max_bad_frac
    """Share of bad rows above which the file is refused."""

    def run(self) -> int:
        """Make the store; write every bad row and what it holds."""
        # A chained comparison refuses NaN as well.
        if not 0 <= self.held_out_frac < 1:
            raise RefusedInput(f"--held-out-frac = {self.held_out_frac:g}: must be at least 0 and below 1")
        if not 0 <= self.max_bad_frac <= 1:
            raise RefusedInput(f"--max-bad-frac = {self.max_bad_frac:g}: must be from 0 to 1")
        source, out = self.source(pictures=None), Path(self.out)
        import_file(source, out=out, held_out_frac=self.held_out_frac, max_bad_frac=self.max_bad_frac)
        store = PreferenceStore(out)
        notes = store.manifest.notes
        _write([*tally(store, notes, bad=_tell_bad).lines(notes), f"store   {self.out}"])
        return 0


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

    def run(self) -> int:
        """Write the pairs of the split and say how many they are."""
        root = None if self.media_root is None else Path(self.media_root)
        store = PreferenceStore(Path(self.store), media_root=root)
        _write(export_swift(store, Path(self.out), split=self.split).lines())
        return 0


@dataclass(frozen=True, kw_only=True)
class Judgements(_Source):
    """Write the pairs of a file or store as judgements, in the form of R1-Reward-RL, for a judge to learn from."""

    out: str
    """File to be made: .parquet or .jsonl."""
    split: Split = "train"
    """Instructions of a store to be written; the others are for another file."""
    orders: Orders = "one"
    """Whether a pair is written once, the better response first in half of them, or once in each order."""
    images: Images = "in_row"
    """Whether rows hold their pictures, or name the files, in which case --data.media_root is where they are."""
    template: str | None = None
    """File with a wording of one's own, with {question}, {first} and {second}; none = ours."""
    attempts: str | None = None
    """What a model made of these judgements before: predictions.parquet of orchestrator.evaluate, or JSONL."""
    right: tuple[int, int] | None = None
    """Keep pairs that it solved at least and at most so often; none = those that it did not solve at first."""
    seed: int = 0
    """Chooses the order where a pair is written once."""
    max_bad_frac: float = _DEFAULTS.max_bad_frac
    """Share of bad rows above which the file is refused."""

    def run(self) -> int:
        """Write the file, and say how many judgements it has and what was left out."""
        refuse_taken(Path(self.out))
        if not 0 <= self.max_bad_frac <= 1:
            raise RefusedInput(f"--max-bad-frac = {self.max_bad_frac:g}: must be from 0 to 1")
        chosen, store = self._chosen(), self.store()
        with TemporaryDirectory() as pictures:
            source = store or self.source(pictures=Path(pictures) if self.images == "in_row" else None)
            making = Making(
                out=Path(self.out),
                request=OURS if self.template is None else request_in(self.template),
                media_root=source.media_root,
                split=self.split,
                orders=self.orders,
                images=self.images,
                seed=self.seed,
                chosen=chosen,
            )
            make_judgements(self._instructions(source), making)
        _write([*making.lines(), f"file    {self.out}"])
        return 0

    def _chosen(self) -> Chosen | None:
        if self.attempts is None:
            if self.right is not None:
                raise RefusedInput("--right is set, but not --attempts, of which it speaks")
            return None
        if self.right is not None and not 0 <= self.right[0] <= self.right[1]:
            raise RefusedInput(
                f"--right {self.right[0]} {self.right[1]}: the first must be at least 0 and at most the second"
            )
        attempts = read_attempts(Path(self.attempts))
        if self.right is None:
            attempts.refuse_unordered()
        return Chosen(attempts=attempts, right=self.right)

    def _instructions(self, source: PreferenceStore | SourceFile) -> Iterator[Instruction]:
        """Those of a store, whose bad rows were accepted when it was made, or of a file, each bad row told."""
        if isinstance(source, PreferenceStore):
            yield from source.rows()
            return
        bad_rows, notes = list[BadRow](), Notes()
        for record in read_records(source, notes=notes):
            if isinstance(record, BadRow):
                _tell_bad(record)
                bad_rows.append(record)
            else:
                yield record
        option = "--max-bad-frac"
        refuse_bad_share(
            bad_rows, num_good=notes.num_rows, name=self.path, option=option, max_bad_frac=self.max_bad_frac
        )
        _write(notes.lines())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 refused input or bad rows."""
    description = "Look at people's files, put them into a store, and write their pairs for others to learn from."
    commands = Check | Show | Import | Export | Judgements
    return ended(lambda: _run(commands, argv, description))


def _run(commands: Any, argv: Sequence[str] | None, description: str) -> int:
    command = parsed(commands, argv, prog="python -m orchestrator.data", description=description)
    refuse_paths(command, *(field.name for field in fields(command) if field.name in _PATHS))
    return command.run()


def _tell_bad(bad: BadRow) -> None:
    _write([f"row {bad.row}: {bad.reason}"])


def _write(lines: Iterable[str]) -> None:
    """Write lines without the control characters that a terminal would obey."""
    for line in lines:
        sys.stdout.write("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
