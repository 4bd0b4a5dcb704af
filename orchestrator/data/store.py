"""Reads a store: counts checked when it is opened, rows streamed in file order or in a seeded shuffled one.

Before the first row is given to anybody all of them are compared with the store's fingerprint, and files that change
behind that are not read any more.

A position is a number of rows: ``iterate(split, seed=s, epoch=e, start=n)`` gives what the whole epoch gives after its
first n rows, on any machine. Row groups come in the order of a seeded hash, a window of them is in memory at a time and
its rows are shuffled together; so memory depends on the window and not on the store.
"""

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.data.fingerprint import RowsDigest, uid_place
from orchestrator.data.order import assign_split, permutation, stream_key
from orchestrator.data.records import SPLITS, Instruction, Split
from orchestrator.data.rows import BadRow, uid_parts
from orchestrator.data.side_tables import SideTable
from orchestrator.data.store_files import (
    MANIFEST_FILE,
    QUARANTINE_FILE,
    TABLES,
    Manifest,
    Part,
    TableName,
    read_manifest,
    rows_of,
)
from orchestrator.errors import RefusedInput

WINDOW_GROUPS = 8
"""Row groups shuffled together; changing it changes every order."""
_DECODED_ROWS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One row group of both tables; its number is that of its shard in every side table."""

    number: int
    part: Part
    index: int

    @property
    def num_instructions(self) -> int:
        """Rows of ``instructions``."""
        return self.part.row_groups[self.index][0]


class PreferenceStore:
    """A finished store, opened for reading."""

    def __init__(self, folder: Path, *, media_root: Path | None = None) -> None:
        """Open a store and compare its files with its manifest; no row is read.

        Args:
            media_root: Where the media are now; none = where they were at import.

        Raises:
            RefusedInput: no manifest, or a file that is missing, damaged or has other row counts.
        """
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder)
        self.media_root = Path(self.manifest.media_root) if media_root is None else media_root
        groups = [(part, index) for part in self.manifest.parts for index in range(len(part.row_groups))]
        self.groups = tuple(Group(number=n, part=part, index=index) for n, (part, index) in enumerate(groups))
        self._is_checked = False
        self._versions = _checked_counts(folder, self.manifest)

    def num_instructions(self, split: Split) -> int:
        """Rows of a split."""
        return sum(group.num_instructions for group in self.groups if group.part.split == split)

    def iterate(
        self,
        split: Split,
        *,
        seed: int,
        epoch: int = 0,
        start: int = 0,
        side_tables: Mapping[str, SideTable] | None = None,
    ) -> Iterator[Instruction]:
        """Every row of a split once, in the order of ``seed`` and ``epoch``, from position ``start`` on.

        Args:
            side_tables: Tables to join, by the name they get in ``Instruction.side``.

        Raises:
            ValueError: ``start`` is no position of the split.
            RefusedInput: the store is damaged, or a side table is not complete.
        """
        self.check()
        size = self.num_instructions(split)
        if not 0 <= start <= size:
            raise ValueError(f"start = {start}: must be from 0 to {size}, the rows of split {split!r}")
        return self._shuffled(split, (seed, epoch, split), start, dict(side_tables or {}))

    def rows(self) -> Iterator[Instruction]:
        """Every row in file order, split by split, each checked against the rule that split them.

        Raises:
            RefusedInput: see ``check``.
        """
        self.check()
        for split in SPLITS:
            yield from self._of_split(split)

    def check(self) -> None:
        """Go through all rows, once for as long as the store is open, before the first is given to anybody.

        Raises:
            RefusedInput: the store is damaged, a row is in a split where its prompt does not belong, or the rows are
                not those of the fingerprint.
        """
        if self._is_checked:
            return
        digest = RowsDigest()
        for row in heapq.merge(*map(self._of_split, SPLITS), key=lambda row: uid_place(row.uid)):
            digest.add(row)
        if digest.hexdigest() != self.manifest.fingerprint:
            raise RefusedInput(
                f"store {str(self.folder)!r} holds other rows than its {MANIFEST_FILE} says: their fingerprint is "
                f"{digest.hexdigest()[:8]}, it has {self.manifest.fingerprint[:8]!r}; import its file again"
            )
        self._is_checked = True

    def _of_split(self, split: Split) -> Iterator[Instruction]:
        for group in (group for group in self.groups if group.part.split == split):
            for row in self._decode([group], np.arange(group.num_instructions), {}):
                digests = (media.sha256 for media in row.media)
                proper = assign_split(row.messages, digests, held_out_frac=self.manifest.held_out_frac)
                if not proper == row.split == split:
                    raise RefusedInput(
                        f"store {str(self.folder)!r}: instruction {row.uid!r} is in split {split!r}, "
                        f"its prompt belongs in {proper!r}"
                    )
                yield row

    def read_group(self, number: int) -> list[Instruction]:
        """One row group in file order: the rows of one shard of a side table."""
        self.check()
        group = self.groups[number]
        return list(self._decode([group], np.arange(group.num_instructions), {}))

    def find(self, uid: str) -> list[Instruction]:
        """The instructions that a row of the source became, by the row's uid."""
        found: list[Instruction] = []
        for group in self.groups:
            uids = self._read(group, "instructions", ["uid"])["uid"].to_pylist()
            places = [place for place, own in enumerate(uids) if uid_parts(own)[0] == uid]
            found += self._decode([group], np.array(places), {}) if places else []
        return found

    def bad_rows(self) -> list[BadRow]:
        """Rows of the source that are not in the store, and why.

        Raises:
            RefusedInput: the list is gone or damaged.
        """
        try:
            if not (self.folder / QUARANTINE_FILE).is_file():
                raise FileNotFoundError(QUARANTINE_FILE)
            lines = (self.folder / QUARANTINE_FILE).read_text(encoding="utf-8").splitlines()
            return [BadRow(row["row"], row["reason"]) for row in map(json.loads, lines)]
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise RefusedInput(f"store {str(self.folder)!r}: {QUARANTINE_FILE!r} is missing or damaged") from error

    def _shuffled(
        self, split: Split, names: tuple[str | int, ...], start: int, side_tables: dict[str, SideTable]
    ) -> Iterator[Instruction]:
        groups = [group for group in self.groups if group.part.split == split]
        order = permutation(len(groups), stream_key(*names, "groups")).tolist()
        position = 0
        for first in range(0, len(order), WINDOW_GROUPS):
            window = [groups[i] for i in order[first : first + WINDOW_GROUPS]]
            size = sum(group.num_instructions for group in window)
            if position + size > start:
                rows = permutation(size, stream_key(*names, "rows", first // WINDOW_GROUPS))
                yield from self._decode(window, rows[max(0, start - position) :], side_tables)
            position += size

    def _decode(
        self, groups: Sequence[Group], order: np.ndarray, side_tables: dict[str, SideTable]
    ) -> Iterator[Instruction]:
        """Rows ``order`` of the groups laid end to end, a few decoded at a time."""
        read = [(self._read(group, "instructions"), self._read(group, "responses")) for group in groups]
        for group, (instructions, responses) in zip(groups, read, strict=True):
            self._check_join(group, instructions, responses)
        instructions = pa.concat_tables([i for i, _ in read]).combine_chunks()
        responses = pa.concat_tables([r for _, r in read]).combine_chunks()
        side = {name: self._join(name, table, groups, responses) for name, table in side_tables.items()}
        del read
        counts = instructions["num_responses"].to_numpy()
        starts = np.cumsum(counts) - counts
        for first in range(0, len(order), _DECODED_ROWS):
            some = order[first : first + _DECODED_ROWS]
            picked = [np.arange(starts[i], starts[i] + counts[i]) for i in some]
            answers = np.concatenate(picked)
            try:
                rows = rows_of(instructions.take(some), responses.take(answers))
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
                raise RefusedInput(
                    f"store {str(self.folder)!r} holds a row that is not one of ours: {error}"
                ) from error
            for row, indices in zip(rows, picked, strict=True):
                joined = {name: tuple(arrays[i] for i in indices) for name, arrays in side.items()}
                yield replace(row, side=joined) if joined else row

    def _read(self, group: Group, table: TableName, columns: list[str] | None = None) -> pa.Table:
        name = group.part.file(table)
        try:
            if _version(self.folder / name) != self._versions[name]:
                raise RefusedInput(f"store {str(self.folder)!r}: {name!r} has changed since the store was opened")
            with pq.ParquetFile(self.folder / name, page_checksum_verification=True) as file:
                return file.read_row_group(group.index, columns=columns or TABLES[table].names, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise RefusedInput(f"store {str(self.folder)!r}: {name!r} is damaged ({error})") from error

    def _check_join(self, group: Group, instructions: pa.Table, responses: pa.Table) -> None:
        never = (*instructions.columns, *(responses[name] for name in ("uid", "response_index", "text")))
        if any(column.null_count for column in never):
            files = f"{group.part.file('instructions')!r} or {group.part.file('responses')!r}"
            raise RefusedInput(f"store {str(self.folder)!r}: row group {group.index} of {files} has an empty cell")
        counts = instructions["num_responses"].to_numpy()
        expected = np.repeat(instructions["uid"].to_numpy(zero_copy_only=False), np.maximum(counts, 0))
        if counts.min(initial=0) < 0 or not np.array_equal(expected, responses["uid"].to_numpy(zero_copy_only=False)):
            raise RefusedInput(
                f"store {str(self.folder)!r}: row group {group.index} of {group.part.file('responses')!r} "
                "does not answer the instructions beside it"
            )

    def _join(self, name: str, table: SideTable, groups: Sequence[Group], responses: pa.Table) -> list[np.ndarray]:
        shards = [table.read(group.number) for group in groups]
        keys = [key for shard in shards for key in shard.keys]
        if keys != list(zip(responses["uid"].to_pylist(), responses["response_index"].to_pylist(), strict=True)):
            raise RefusedInput(f"side table {name!r} in {str(table.folder)!r} speaks of other responses than the store")
        return [values for shard in shards for values in shard.values]


def _version(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _checked_counts(folder: Path, manifest: Manifest) -> dict[str, tuple[int, int, int]]:
    """The files by name, each as it is now."""
    versions: dict[str, tuple[int, int, int]] = {}
    groups = [group for part in manifest.parts for group in part.row_groups]
    told = (manifest.counts.instructions, manifest.counts.responses)
    for table, count, column in zip(TABLES, told, (0, 1), strict=True):
        for part in manifest.parts:
            name = part.file(table)
            _check_file(folder, name, TABLES[table], [group[column] for group in part.row_groups])
            versions[name] = _version(folder / name)
        total = sum(group[column] for group in groups)
        if total != count:
            raise RefusedInput(
                f"store {str(folder)!r}: its files have {total} {table}, counts.{table} in its manifest is {count}"
            )
    return versions


def _check_file(folder: Path, name: str, schema: pa.Schema, expected: list[int]) -> None:
    if not (folder / name).is_file():
        raise RefusedInput(f"store {str(folder)!r} lacks the file {name!r} that its manifest names")
    try:
        footer = pq.read_metadata(folder / name)
        if footer.schema.to_arrow_schema() != schema:
            raise RefusedInput(f"store {str(folder)!r}: {name!r} has other columns than a store")
    except (OSError, pa.ArrowException) as error:
        raise RefusedInput(f"store {str(folder)!r}: {name!r} is damaged ({error})") from error
    found = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    if found != expected:
        raise RefusedInput(
            f"store {str(folder)!r}: {name!r} has {sum(found)} rows in {len(found)} row groups, "
            f"its manifest says {sum(expected)} in {len(expected)}"
        )
