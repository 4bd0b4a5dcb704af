"""From a file to prompts of an online run, or to instructions that a store keeps: one way, whatever the format.

Rows pass through in chunks: those of a chunk are parsed, the files they name are probed together, then each row is
finished or refused by itself, so that an unreadable image costs its own row and no neighbour. A bad row is kept aside
with its reason; no other replaces it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator.config.formats import FORMATS
from orchestrator.data.facts import META, FactFiles
from orchestrator.data.kept_rows import without_pictures
from orchestrator.data.keys import Notes
from orchestrator.data.media import MediaFinder, Probed, Source, Turn
from orchestrator.data.order import assign_split
from orchestrator.data.readers import Reader, reader_of
from orchestrator.data.readers.draft import Draft
from orchestrator.data.records import Instruction, Response, StoredMedia
from orchestrator.data.rows import BadRow, JsonRow, RowError, row_uid, shown
from orchestrator.data.shards import beside
from orchestrator.data.source_file import SourceFile
from orchestrator.data.turns import check_prompt, refuse_told_verdict, words
from orchestrator.errors import RefusedInput
from workers.multimodal.media import MediaError
from workers.types import MediaRef, Prompt

_CHUNK_ROWS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Usable prompts in file order, and every row that is not."""

    prompts: tuple[Prompt, ...]
    bad_rows: tuple[BadRow, ...]
    fingerprint: str
    """SHA-256 over rows and media digests: a resumed run must see the same data."""
    notes: Notes = field(default_factory=Notes)
    """What people should be told of the file once."""
    by_source: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint of each source by its name, where there are several."""


def read_prompts(source: SourceFile, *, demonstrations: bool = False) -> Dataset:
    """Every row of a file as a prompt, or among the bad ones.

    Args:
        demonstrations: Take the assistant's last turn for the demonstration where the row has no other. To everybody
            else such a row is a bad one: its prompt would hold its answer.
    Raises:
        RefusedInput: the file is missing or cannot be read at all, or the media root is no folder.
    """
    prompts, bad_rows, notes = list[Prompt](), list[BadRow](), Notes()
    for row in _rows(source, demonstrations=demonstrations):
        if isinstance(row, BadRow):
            bad_rows.append(BadRow(row.row, row.reason + source.whose))
        else:
            prompts += [_prompt(found, source) for found in row.found]
            notes.add(row.unread, has_images=row.has_images)
    fingerprint = _fingerprint(prompts, "" if source.read_by in FORMATS else reader_of(source.read_by).name)
    return Dataset(prompts=tuple(prompts), bad_rows=tuple(bad_rows), fingerprint=fingerprint, notes=notes)


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
    root = source.media_root.resolve()
    for row in _rows(source):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            made = [_instruction(found, root, held_out_frac) for found in row.found]
        except RowError as error:
            yield BadRow(row.number, f"{error}{row.place}")
            continue
        if notes is not None:
            notes.add(row.unread, has_images=row.has_images)
        yield from made


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A draft whose media are found and, in the end, opened."""

    uid: str
    draft: Draft
    messages: tuple[Turn, ...]
    sources: tuple[Source, ...]
    row: Any
    """As the file has it."""
    images: tuple[tuple[MediaRef, int], ...] = ()
    """One a source: its reference and its size in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What a row became."""

    number: int
    found: tuple[_Found, ...]
    unread: dict[int, tuple[str, ...]]
    """By number of the row in the file, of which it may be several."""
    place: str
    """See ``JsonRow``."""

    @property
    def has_images(self) -> bool:
        return any(one.sources for one in self.found)


def _rows(source: SourceFile, *, demonstrations: bool = False) -> Iterator[_Row | BadRow]:
    if source.media_root != beside(source.path) and not source.media_root.is_dir():
        raise RefusedInput(f"{source.root_option} {str(source.media_root)!r} is not a folder")
    reader = reader_of(source.read_by)
    finder = MediaFinder(source.media_root, source.video_frames, pictures=source.picture_folder)
    rows, facts = source.rows(rows_share=reader.rows_share), source.facts
    probed = Probed(source.max_pixels)
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        tried = [_attempt(row, source.uids_from, reader, finder, facts, demonstrations) for row in chunk]
        probed.probe([s.path for row in tried if isinstance(row, _Row) for one in row.found for s in one.sources])
        yield from (_opened(row, probed) if isinstance(row, _Row) else row for row in tried)


def _attempt(
    row: JsonRow | BadRow, path: Path, reader: Reader, finder: MediaFinder, facts: FactFiles, demonstrations: bool
) -> _Row | BadRow:
    if isinstance(row, BadRow):
        return row
    try:
        read = reader.read(row.value)
        made = read if isinstance(read, tuple) else (read,)
        drafts = [_checked(facts.joined(draft), demonstrations) for draft in made]
        resolved = [finder.resolve(draft.turns, frame_order=draft.frame_order, in_row=draft.in_row) for draft in drafts]
    except RowError as error:
        return BadRow(row.number, f"{error}{row.place}")
    answers = range(1, len(drafts) + 1) if len(drafts) > 1 else (None,)
    numbers = [row.number] if reader.rows_share is None else [one.number for one in row.value]
    return _Row(
        number=row.number,
        found=tuple(
            _Found(
                uid=row_uid(path, row.number, answer=answer),
                draft=draft,
                messages=turns,
                sources=sources,
                row=row.value,
            )
            for answer, draft, (turns, sources) in zip(answers, drafts, resolved, strict=True)
        ),
        unread=dict(zip(numbers, drafts[0].unread, strict=False)),
        place=row.place,
    )


def _checked(draft: Draft, demonstrations: bool) -> Draft:
    """The draft with a prompt that asks something and does not hold its own answer."""
    last = draft.turns[-1:]
    if demonstrations and not draft.responses and last and last[0]["role"] == "assistant":
        text = words(last)
        if not text.strip() or any(part["type"] != "text" for part in last[0]["content"]):
            raise RowError(f"the assistant's last turn is {shown(text)}, expected text alone, which sft could learn")
        draft = replace(draft, turns=draft.turns[:-1], responses=(Response(text=text),))
    check_prompt(draft.turns)
    if draft.label is not None:
        refuse_told_verdict(draft.turns, draft.label)
    return draft


def _opened(row: _Row, probed: Probed) -> _Row | BadRow:
    """The row with its images, or what is wrong with the first that cannot be opened."""
    found = []
    for one in row.found:
        images = []
        for source in one.sources:
            image = probed.known[source.path]
            if isinstance(image, MediaError):
                return BadRow(row.number, f"{source.shown} {image.problem}{row.place}")
            images.append(image)
        found.append(replace(one, images=tuple(images)))
    return replace(row, found=tuple(found))


def _prompt(found: _Found, source: SourceFile) -> Prompt:
    draft = found.draft
    return Prompt(
        uid=found.uid,
        messages=found.messages,
        media=tuple(ref for ref, _ in found.images),
        label=draft.label,
        target=draft.responses[0].text if len(draft.responses) == 1 else None,
        meta=draft.meta,
        source=source.name,
        row=without_pictures(found.row) if source.keeps_rows else {},
    )


def _instruction(found: _Found, root: Path, held_out_frac: float) -> Instruction:
    media: list[StoredMedia] = []
    for source, (ref, size) in zip(found.sources, found.images, strict=True):
        file = Path(ref.path)  # outside the root stand pictures of rows that are only looked at
        path = (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()
        if not path.isprintable():  # Arrow takes Unicode only, which the name of a file need not be
            raise RowError(f"{source.shown} has a file name that cannot be printed")
        media.append(StoredMedia(sha256=ref.sha256, path=path, size_bytes=size, width=ref.width, height=ref.height))
    digests = [image.sha256 for image in media]
    label = found.draft.label
    return Instruction(
        uid=found.uid,
        split=assign_split(found.messages, digests, held_out_frac=held_out_frac),
        messages=found.messages,
        media=tuple(media),
        responses=found.draft.responses,
        meta=found.draft.meta if label is None else {"label": label, **found.draft.meta},
    )


def _fingerprint(prompts: list[Prompt], reader: str) -> str:
    digest = hashlib.sha256(reader.encode())
    for p in prompts:
        row = [p.uid, p.messages, [m.sha256 for m in p.media], p.label, p.target, *([p.row] if p.row else [])]
        row += [{META: facts}] if (facts := p.meta.get(META)) else []
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()
