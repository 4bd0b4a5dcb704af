"""A file of people's and how it is read: its rows with the names that a format reads, and files for their pictures.

The shards of a folder are one file: their rows are numbered on from shard to shard.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.config.formats import Served, refuse_unserved
from orchestrator.config.schema import TrainConfig
from orchestrator.data.columns import Columns
from orchestrator.data.facts import NO_FACTS, FactFiles
from orchestrator.data.row_pictures import FOLDER, RowPictures
from orchestrator.data.rows import BadRow, JsonRow, RowError, grouped, read_json_groups, read_json_rows
from orchestrator.data.shards import beside, data_files, data_sha256
from orchestrator.data.table_rows import is_table, read_table_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file in one of the formats, or a folder of its shards, and how it is to be read."""

    path: Path
    read_by: str
    """Name of a format, or the user's ``FILE.py:NAME``."""
    media_root: Path
    max_pixels: int | None
    video_frames: int
    root_option: str = "--media-root"
    """Name that ``media_root`` has for whoever asks."""
    pictures: Path | None = None
    """Folder for pictures that stand in the rows and for frames of videos; None is one in ``media_root``."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """By the name that the format reads, the column of the file that is meant."""
    map_option: str = "--map"
    """Name that ``columns`` has for whoever asks."""
    facts: FactFiles = NO_FACTS
    """Files of what is true of its samples."""
    keeps_rows: bool = False
    """Whether prompts keep the row they are from, which then is part of what the data are."""
    name: str = ""
    """That of the source, where a run has several; uids begin with it."""

    @property
    def uids_from(self) -> Path:
        """What the uids of its rows are made of, see ``row_uid``."""
        return Path(self.name) if self.name else self.path

    @property
    def sha256(self) -> str:
        """Digest of all that its rows are made of, pictures apart.

        Raises:
            RefusedInput: a file is missing.
        """
        rows, facts = data_sha256(self.path), self.facts.digests()
        return hashlib.sha256(json.dumps([rows, *facts]).encode()).hexdigest() if facts else rows

    @property
    def picture_folder(self) -> Path:
        """Where files are made of what stands in the rows, and of the frames of videos."""
        return self.pictures or self.media_root / FOLDER

    @property
    def whose(self) -> str:
        """What is said of its bad rows behind the reason; nothing where a run has one source."""
        return f" (source {self.name!r})" if self.name else ""

    def rows(self, *, rows_share: str | None) -> Iterator[JsonRow | BadRow]:
        """Every row of the file, or those together that share a field; see ``read_json_groups``.

        Raises:
            RefusedInput: the file is missing or cannot be read, or ``columns`` does not fit it.
        """
        columns = Columns(self.columns, self.map_option)
        sink = RowPictures(self.picture_folder)
        if rows_share is None or self.path.is_dir() or is_table(self.path):
            rows = _all_rows(self.path, columns, sink)
            found = rows if rows_share is None else grouped(list(rows), rows_share)
        else:
            groups = read_json_groups(self.path, field=self.columns.get(rows_share, rows_share))
            found = (_prepared_group(group, columns, sink) for group in groups)
        return columns.refuse_unmet(found, name=str(self.path))


def source_file(config: TrainConfig, path: str, *, pictures: Path | None = None, name: str = "") -> SourceFile:
    """How a run reads a file, its media beside it unless told otherwise.

    Args:
        pictures, name: see ``SourceFile``.
    Raises:
        RefusedInput: the run does not learn from such rows.
    """
    root, data = config.data.media_root, config.data
    if config.offline:
        learned: tuple[Served, ...] = ("preferences",)
        needs = ("demonstrations", *learned) if config.needs.responses == "best" else learned
        refuse_unserved(data.read_by, algo=config.algo, needs=needs)
    return SourceFile(
        path=Path(path),
        read_by=data.read_by,
        media_root=beside(Path(path)) if root is None else Path(root),
        max_pixels=data.refused_above,
        video_frames=data.video_frames,
        root_option="data.media_root",
        pictures=pictures,
        columns=data.map,
        map_option="data.map",
        facts=FactFiles(tuple(map(Path, data.facts)), option="data.facts"),
        keeps_rows=bool(config.reward.functions) or config.reward.url is not None,
        name=name,
    )


def _all_rows(path: Path, columns: Columns, sink: RowPictures) -> Iterator[JsonRow | BadRow]:
    before = 0
    for file in data_files(path):
        last = 0
        of_table = is_table(file)
        for row in _numbered(file) if of_table else read_json_rows(file):
            last = row.row if isinstance(row, BadRow) else row.number
            prepared = _prepared(row, columns, sink.of_table if of_table else sink.of_json)
            yield _moved(prepared, before, f" (row {last} of {file.name!r})") if path.is_dir() else prepared
        before += last


def _numbered(file: Path) -> Iterator[JsonRow]:
    return (JsonRow(number, row) for number, row in enumerate(read_table_rows(file), start=1))


def _moved(row: JsonRow | BadRow, before: int, place: str) -> JsonRow | BadRow:
    """The row of a shard as one of the folder."""
    if isinstance(row, BadRow):
        return BadRow(before + row.row, row.reason + place)
    return JsonRow(before + row.number, row.value, place)


def _prepared(row: JsonRow | BadRow, columns: Columns, named: Callable[[Any], Any]) -> JsonRow | BadRow:
    if isinstance(row, BadRow):
        return row
    try:
        return JsonRow(row.number, named(columns.renamed(row.value, row.number)))
    except RowError as error:
        return BadRow(row.number, str(error))


def _prepared_group(group: JsonRow | BadRow, columns: Columns, sink: RowPictures) -> JsonRow | BadRow:
    """Rows that are one instruction: a bad one of them makes it bad."""
    if isinstance(group, BadRow):
        return group
    rows = [_prepared(row, columns, sink.of_json) for row in group.value]
    bad = next((row for row in rows if isinstance(row, BadRow)), None)
    return bad or JsonRow(group.number, tuple(rows))
