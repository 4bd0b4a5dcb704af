"""From a released file to items: Parquet, TSV, JSON and JSONL, read row by row, nothing downloaded and nothing run.

Media are confined to their root and bounded in size before they are decoded, as for training; a bad row is kept aside
with its reason and no other takes its place. Invariant: an item's digest is of all that its row says.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator.data.keys import Notes
from orchestrator.data.media import MediaFinder, Probed, Source
from orchestrator.data.row_pictures import RowPictures
from orchestrator.data.rows import BadRow, JsonRow, RowError, shown
from orchestrator.data.shards import data_files, data_sha256
from orchestrator.data.source_file import SourceFile
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.items import Item, ItemDraft, Part, Questions
from orchestrator.evaluation.benchmarks.tsv import SUFFIX, read_tsv_rows
from orchestrator.evaluation.predictions import digest_of
from workers.multimodal.media import MediaError

_CHUNK_ROWS = 256
_NAMES_TOLD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFile:
    """A released file, or a folder of its shards, and where its media are."""

    path: Path
    media_root: Path
    pictures: Path
    """Folder for pictures that stand in the rows and for frames of videos."""
    max_pixels: int | None = None
    """Refuse larger images; None is the bound of every run."""
    video_frames: int = 8

    @property
    def sha256(self) -> str:
        """Digest of the rows.

        Raises:
            RefusedInput: the file is missing.
        """
        return data_sha256(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """The usable rows of a benchmark's file in its order, and every row that is not."""

    items: tuple[Item, ...]
    bad_rows: tuple[BadRow, ...]
    notes: Notes = field(default_factory=Notes)

    def lines(self) -> Iterator[str]:
        """What people should be told: bad rows first, by number and reason."""
        for bad in self.bad_rows[:_NAMES_TOLD]:
            yield f"row {bad.row} is left out: {bad.reason}"
        if len(self.bad_rows) > _NAMES_TOLD:
            yield f"{len(self.bad_rows) - _NAMES_TOLD} more rows are left out"
        yield from self.notes.lines()


def read_items(file: ItemFile, questions: Questions) -> Items:
    """Read every row.

    Raises:
        RefusedInput: the file is missing, cannot be read, or has no usable row: then it is of another benchmark or
            version, and the first row's reason says how.
    """
    found = items_of(read_rows(file, questions), file, questions)
    if not found.items:
        why = f"; row {found.bad_rows[0].row}: {found.bad_rows[0].reason}" if found.bad_rows else ""
        raise RefusedInput(f"data file {str(file.path)!r} has no row of this benchmark{why}")
    return found


def items_of(rows: Iterator[tuple[str, JsonRow | BadRow]], file: ItemFile, questions: Questions) -> Items:
    """What rows come to, each with the names that ``read_rows`` gives it.

    Args:
        file: Says where their media are.
    """
    items, bad_rows, notes = list[Item](), list[BadRow](), Notes()
    finder = MediaFinder(file.media_root, file.video_frames, pictures=file.pictures)
    probed = Probed(file.max_pixels)
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        tried = [_attempt(row, name, questions, finder) for name, row in chunk]
        probed.probe([source.path for one in tried if isinstance(one, _Found) for source in one.sources])
        for one in tried:
            item = one if isinstance(one, BadRow) else _item(one, probed)
            if isinstance(item, BadRow):
                bad_rows.append(item)
                continue
            items.append(item)
            assert isinstance(one, _Found)
            notes.add({one.row: one.draft.unread}, has_images=bool(item.media))
    return Items(items=tuple(items), bad_rows=tuple(bad_rows), notes=notes)


def read_rows(file: ItemFile, questions: Questions) -> Iterator[tuple[str, JsonRow | BadRow]]:
    """Every row with the last names of its file's path, which may say the task or the split.

    Raises:
        RefusedInput: the file is missing or cannot be read.
    """
    before = 0
    for path in data_files(file.path):
        name, last = "/".join(path.parts[-2:]), 0
        for row in _rows_of(path, file, questions):
            last = row.row if isinstance(row, BadRow) else row.number
            yield name, _moved(row, before)
        before += last


def _rows_of(path: Path, file: ItemFile, questions: Questions) -> Iterator[JsonRow | BadRow]:
    pictures = RowPictures(file.pictures)
    if path.suffix.lower() == SUFFIX:
        yield from read_tsv_rows(path, pictures)
        return
    if questions.unpack is not None and (packed := _unpacked(path, questions)) is not None:
        for number, value in enumerate(packed, start=1):
            try:
                yield JsonRow(number, pictures.of_json(value))
            except RowError as error:
                yield BadRow(number, str(error))
        return
    source = SourceFile(
        path=path,
        read_by="",
        media_root=file.media_root,
        max_pixels=file.max_pixels,
        video_frames=file.video_frames,
        pictures=file.pictures,
    )
    yield from source.rows(rows_share=None)


def _unpacked(path: Path, questions: Questions) -> Sequence[Any] | None:
    """The rows of a file that is one JSON object; None where it is anything else."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    return questions.unpack(whole) if isinstance(whole, dict) and questions.unpack is not None else None


def _moved(row: JsonRow | BadRow, before: int) -> JsonRow | BadRow:
    return BadRow(before + row.row, row.reason) if isinstance(row, BadRow) else JsonRow(before + row.number, row.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A draft whose media are found."""

    row: int
    draft: ItemDraft
    parts: tuple[tuple[Part, ...], ...]
    """Of the question, then of each response."""
    sources: tuple[Source, ...]


def _attempt(row: JsonRow | BadRow, name: str, questions: Questions, finder: MediaFinder) -> _Found | BadRow:
    if isinstance(row, BadRow):
        return row
    try:
        if not isinstance(row.value, dict):
            raise RowError(f"the row is {shown(row.value)}, expected an object")
        draft = questions.read(row.value, name)
        turns = [{"role": "user", "content": list(parts)} for parts in (draft.question, *draft.responses)]
        resolved, sources = finder.resolve(turns)
    except RowError as error:
        return BadRow(row.number, str(error))
    parts = tuple(tuple(turn["content"]) for turn in resolved)
    return _Found(row=row.number, draft=draft, parts=parts, sources=sources)


def _item(found: _Found, probed: Probed) -> Item | BadRow:
    media = []
    for source in found.sources:
        image = probed.known[source.path]
        if isinstance(image, MediaError):
            return BadRow(found.row, f"{source.shown} {image.problem}")
        media.append(image[0])
    draft, (question, *responses) = found.draft, found.parts
    says = [draft.id, question, responses, dict(draft.options), draft.truths, draft.category, draft.group]
    return Item(
        row=found.row,
        digest=digest_of(*says, dict(draft.meta), [ref.sha256 for ref in media]),
        id=draft.id,
        question=question,
        responses=tuple(responses),
        media=tuple(media),
        options=draft.options,
        truths=draft.truths,
        category=draft.category,
        group=draft.group,
        meta=draft.meta,
    )
