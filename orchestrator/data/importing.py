"""From a file to records, and from records to a store. A bad row is kept aside with its reason; no other replaces it.

Rows pass through in chunks: those of a chunk are parsed, the files they name are probed together, then each row is
finished or refused by itself, so that an unreadable image costs its own row and no neighbour.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from algorithms.records import MediaRef
from orchestrator.data.dataset import BadRow, refuse_bad_share, row_uid
from orchestrator.data.fields import RowError
from orchestrator.data.json_rows import JsonRow, read_json_groups, read_json_rows
from orchestrator.data.keys import Notes
from orchestrator.data.manifest import Manifest
from orchestrator.data.media_sources import MediaFinder, Source, Turn, probe_all
from orchestrator.data.readers.draft import Draft
from orchestrator.data.readers.registry import GROUP_FIELDS, READERS, FormatName
from orchestrator.data.records import Instruction, StoredMedia
from orchestrator.data.splits import assign_split
from orchestrator.data.turns import check_prompt
from orchestrator.data.writer import StoreWriter, prepare_folder
from orchestrator.errors import RefusedInput
from workers.multimodal.media import MediaError

_CHUNK_ROWS = 256
# Images that many rows share are opened once, as long as their rows are not too far apart.
_REMEMBERED_FILES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file in one of the formats, and how it is to be read."""

    path: Path
    reader: FormatName
    media_root: Path
    max_pixels: int | None
    video_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resolved:
    """A draft whose media are found but not opened."""

    uid: str
    draft: Draft
    messages: tuple[Turn, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What a row became."""

    number: int
    drafts: tuple[_Resolved, ...]
    unread: dict[int, tuple[str, ...]]
    """By number of the row in the file, of which it may be several."""


def read_records(
    source: SourceFile, *, held_out_frac: float = 0.0, notes: Notes | None = None
) -> Iterator[Instruction | BadRow]:
    """Every row of a file in its order, good or bad; where several make an instruction, its number is the first's.

    A conversation of several answers becomes that many instructions, one after the other.

    Args:
        notes: Is given what people should be told of the file.
    Raises:
        RefusedInput: the file is missing or cannot be read at all, or the media root is no folder.
    """
    if not source.media_root.is_dir():
        raise RefusedInput(f"--media-root {str(source.media_root)!r} is not a folder")
    finder = MediaFinder(source.media_root, source.video_frames)
    shared = GROUP_FIELDS.get(source.reader)
    rows = read_json_rows(source.path) if shared is None else read_json_groups(source.path, field=shared)
    probed = _Probed(source.max_pixels)
    root = source.media_root.resolve()
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        tried = [row if isinstance(row, BadRow) else _attempt(source, finder, row) for row in chunk]
        images = probed.probe([s.path for r in tried if isinstance(r, _Row) for d in r.drafts for s in d.sources])
        for row in tried:
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                made = [_finish(draft, images, root, held_out_frac) for draft in row.drafts]
            except RowError as error:
                yield BadRow(row.number, str(error))
                continue
            if notes is not None:
                notes.add(row.unread, has_images=any(instruction.media for instruction in made))
            yield from made


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
        reader=source.reader,
        source_name=source.path.name,
        source_sha256=file_sha256(source.path),
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


class _Probed:
    """What probing said of the files seen last."""

    def __init__(self, max_pixels: int | None) -> None:
        self._max_pixels = max_pixels
        self._known: OrderedDict[Path, tuple[MediaRef, int] | MediaError] = OrderedDict()

    def probe(self, paths: list[Path]) -> dict[Path, tuple[MediaRef, int] | MediaError]:
        """Reference and size in bytes of each, or what is wrong with it."""
        unique = dict.fromkeys(paths)
        for path, probed in probe_all((p for p in unique if p not in self._known), max_pixels=self._max_pixels).items():
            self._known[path] = probed if isinstance(probed, MediaError) else (probed, path.stat().st_size)
        found = {path: self._known[path] for path in unique}
        while len(self._known) > _REMEMBERED_FILES:
            self._known.popitem(last=False)
        return found


def _attempt(source: SourceFile, finder: MediaFinder, row: JsonRow) -> _Row | BadRow:
    try:
        read = READERS[source.reader](row.value)
        drafts = list(read) if isinstance(read, tuple) else [read]
        for draft in drafts:
            check_prompt(draft.turns)
        found = [finder.resolve(draft.turns, frame_order=draft.frame_order) for draft in drafts]
    except RowError as error:
        return BadRow(row.number, str(error))
    answers = range(1, len(drafts) + 1) if len(drafts) > 1 else (None,)
    numbers = [one.number for one in row.value] if source.reader in GROUP_FIELDS else [row.number]
    return _Row(
        number=row.number,
        drafts=tuple(
            _Resolved(uid=row_uid(source.path, row.number, answer=answer), draft=draft, messages=turns, sources=sources)
            for answer, draft, (turns, sources) in zip(answers, drafts, found, strict=True)
        ),
        unread=dict(zip(numbers, drafts[0].unread, strict=True)),
    )


def _finish(
    row: _Resolved, images: dict[Path, tuple[MediaRef, int] | MediaError], root: Path, held_out_frac: float
) -> Instruction:
    media: list[StoredMedia] = []
    for source in row.sources:
        image = images[source.path]
        if isinstance(image, MediaError):
            raise RowError(f"{source.shown} {image.problem}")
        ref, size = image
        path = Path(ref.path).relative_to(root).as_posix()
        if not path.isprintable():  # Arrow takes Unicode only, which the name of a file need not be
            raise RowError(f"{source.shown} has a file name that cannot be printed")
        media.append(StoredMedia(sha256=ref.sha256, path=path, size_bytes=size, width=ref.width, height=ref.height))
    digests = [image.sha256 for image in media]
    return Instruction(
        uid=row.uid,
        split=assign_split(row.messages, digests, held_out_frac=held_out_frac),
        messages=row.messages,
        media=tuple(media),
        responses=row.draft.responses,
        meta=row.draft.meta,
    )


def file_sha256(path: Path) -> str:
    """Digest of a data file.

    Raises:
        RefusedInput: there is none.
    """
    if not path.is_file():
        raise RefusedInput(f"data file {str(path)!r} is not a file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
