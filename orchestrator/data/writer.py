"""Writes a store: row group by row group, so that no more than a few of them are ever in memory.

Files bear a temporary name until they are whole. The manifest comes last, so that whatever a crash leaves is no store;
the next import into that folder clears it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.data.counted import refuse_bad_share
from orchestrator.data.fingerprint import RowsDigest, uid_place
from orchestrator.data.keys import Notes
from orchestrator.data.order import assign_split
from orchestrator.data.readers import reader_of
from orchestrator.data.reading import read_records
from orchestrator.data.records import SPLITS, Instruction, Split
from orchestrator.data.rows import BadRow
from orchestrator.data.source_file import SourceFile
from orchestrator.data.store_files import (
    MANIFEST_FILE,
    QUARANTINE_FILE,
    TABLES,
    Counts,
    Manifest,
    Part,
    TableName,
    instruction_table,
    response_table,
    write_manifest,
)
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import flush, write_atomic

GROUP_ROWS = 1024
"""Instructions in a row group: what is read at once."""
# Long texts make a row group smaller: memory is bounded in bytes, whatever the rows are.
_GROUP_BYTES = 4 * 2**20
# A file's footer is read whole, so that its length must not grow with the store.
_GROUPS_PER_PART = 64


def import_file(
    source: SourceFile, *, out: Path, held_out_frac: float, max_bad_frac: float, option: str = "--max-bad-frac"
) -> Manifest:
    """Write a file's good rows into a store and its bad ones beside them, or refuse and leave no store.

    Args:
        option: Name that ``max_bad_frac`` has for whoever asks.
    Raises:
        RefusedInput: see ``read_records`` and ``refuse_bad_share``; or ``out`` is not free.
    """
    prepare_folder(out)  # a folder that is taken is said before a long file is read
    bad_rows, notes = list[BadRow](), Notes()
    with StoreWriter(
        out,
        reader=reader_of(source.read_by).name,
        source_name=source.path.name or source.path.resolve().name,
        source_sha256=source.sha256,
        media_root=source.media_root,
        held_out_frac=held_out_frac,
    ) as writer:
        for record in read_records(source, held_out_frac=held_out_frac, notes=notes):
            if isinstance(record, BadRow):
                bad_rows.append(record)
            else:
                writer.add(record)
        refuse_bad_share(
            bad_rows, num_good=notes.num_rows, name=str(source.path), option=option, max_bad_frac=max_bad_frac
        )
        return writer.commit(bad_rows, notes)


class StoreWriter:
    """A store being made; ``commit`` finishes it, leaving the block without it removes what was written."""

    def __init__(
        self,
        folder: Path,
        *,
        reader: str,
        source_name: str,
        source_sha256: str,
        media_root: Path,
        held_out_frac: float,
        group_rows: int = GROUP_ROWS,
    ) -> None:
        self._folder = folder
        self._about = {
            "reader": reader,
            "source_name": source_name,
            "source_sha256": source_sha256,
            "media_root": str(media_root.resolve()),
            "held_out_frac": held_out_frac,
        }
        self._held_out_frac = held_out_frac
        prepare_folder(folder)
        self._splits = {split: _SplitWriter(folder, split, group_rows) for split in SPLITS}
        self._digest = RowsDigest()
        self._last_uid = ""
        self._unvalued = 0
        self._committed = False

    def add(self, instruction: Instruction) -> None:
        """Append one instruction to its split.

        Raises:
            ValueError: it is in another split than its prompt, or its uid does not follow the one before. Ascending
                uids, shorter ones first, are unique without keeping them all in memory.
        """
        uid = instruction.uid
        if uid_place(uid) <= uid_place(self._last_uid):
            raise ValueError(f"uid {uid!r} does not follow {self._last_uid!r}: uids ascend, shorter ones first")
        digests = (media.sha256 for media in instruction.media)
        split = assign_split(instruction.messages, digests, held_out_frac=self._held_out_frac)
        if instruction.split != split:
            raise ValueError(f"instruction {uid!r} is in split {instruction.split!r}, its prompt belongs in {split!r}")
        self._last_uid = uid
        self._unvalued += sum(not r.is_valued for r in instruction.responses)
        self._digest.add(instruction)
        self._splits[instruction.split].add(instruction)

    def commit(self, bad_rows: Sequence[BadRow] = (), notes: Notes | None = None) -> Manifest:
        """Finish every file, then write the manifest.

        Args:
            notes: What people should be told of the source.
        """
        parts = tuple(part for writer in self._splits.values() for part in writer.close())
        groups = [group for part in parts for group in part.row_groups]
        lines = (json.dumps({"row": bad.row, "reason": bad.reason}) + "\n" for bad in bad_rows)
        write_atomic(self._folder / QUARANTINE_FILE, "".join(lines))
        counts = Counts(
            instructions=sum(instructions for instructions, _ in groups),
            responses=sum(responses for _, responses in groups),
            unvalued_responses=self._unvalued,
            bad_rows=len(bad_rows),
        )
        manifest = Manifest.model_validate(
            {
                **self._about,
                "counts": counts,
                "fingerprint": self._digest.hexdigest(),
                "parts": parts,
                "notes": notes or Notes(),
            }
        )
        write_manifest(self._folder, manifest)
        self._committed = True
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            for writer in self._splits.values():
                writer.abandon()
            _clear(self._folder)


class _SplitWriter:
    """Instructions of one split, in the order they come."""

    def __init__(self, folder: Path, split: Split, group_rows: int) -> None:
        self._folder, self._group_rows = folder, group_rows
        self._split: Split = split
        self._pending: list[Instruction] = []
        self._pending_bytes = 0
        self._parts: list[Part] = []
        self._groups: list[tuple[int, int]] = []
        self._writers: dict[TableName, pq.ParquetWriter] = {}

    def add(self, instruction: Instruction) -> None:
        self._pending.append(instruction)
        self._pending_bytes += _text_bytes(instruction)
        if len(self._pending) >= self._group_rows or self._pending_bytes >= _GROUP_BYTES:
            self._write_group()

    def close(self) -> list[Part]:
        if self._pending:
            self._write_group()
        if self._groups:
            self._finish_part()
        return self._parts

    def abandon(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _write_group(self) -> None:
        tables: dict[TableName, pa.Table] = {
            "instructions": instruction_table(self._pending),
            "responses": response_table(self._pending),
        }
        for name, table in tables.items():
            self._writer(name).write_table(table, row_group_size=max(table.num_rows, 1))
        self._groups.append((tables["instructions"].num_rows, tables["responses"].num_rows))
        self._pending, self._pending_bytes = [], 0
        if len(self._groups) == _GROUPS_PER_PART:
            self._finish_part()

    def _writer(self, table: TableName) -> pq.ParquetWriter:
        if table not in self._writers:
            path = _partial(self._folder / self._part().file(table))
            # Absolute, as a folder whose name begins like an address would be taken for one.
            self._writers[table] = pq.ParquetWriter(
                str(path.absolute()), TABLES[table], compression="zstd", write_page_checksum=True
            )
        return self._writers[table]

    def _part(self) -> Part:
        return Part(split=self._split, number=len(self._parts), row_groups=tuple(self._groups))

    def _finish_part(self) -> None:
        part = self._part()
        for name, writer in self._writers.items():
            writer.close()
            path = self._folder / part.file(name)
            flush(_partial(path))
            _partial(path).replace(path)
            flush(path.parent)
        self._parts.append(part)
        self._groups, self._writers = [], {}


def prepare_folder(folder: Path) -> None:
    """Make an empty store folder, clearing what an unfinished import left there.

    Raises:
        RefusedInput: it holds a finished store, or files that are not ours.
    """
    if (folder / MANIFEST_FILE).exists():
        raise RefusedInput(f"--out {str(folder)!r} already holds a store")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strangers = sorted(path.name for path in folder.iterdir() if path.name not in (*TABLES, QUARANTINE_FILE))
        strangers = [name for name in strangers if not name.endswith(".partial")]
        if strangers:
            raise RefusedInput(f"--out {str(folder)!r} is not empty: it holds {strangers[0]!r}")
        _clear(folder)
        for table in TABLES:
            (folder / table).mkdir(exist_ok=True)
    except OSError as error:
        raise RefusedInput(f"--out {str(folder)!r} cannot be made: {error.strerror}") from error


def _clear(folder: Path) -> None:
    for table in TABLES:
        for pattern in ("*.parquet", ".*.partial"):
            for path in (folder / table).glob(pattern):
                path.unlink()
    for path in (folder / QUARANTINE_FILE, *folder.glob(".*.partial")):
        path.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _text_bytes(instruction: Instruction) -> int:
    prompt = sum(len(p.get("text", "")) for turn in instruction.messages for p in turn["content"])
    return prompt + sum(len(r.text) + len(r.critique or "") for r in instruction.responses)
