"""The files of a store: its manifest, and the two tables with the way from records and back.

The manifest is written last: a folder without one is no store.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.data.keys import Notes
from orchestrator.data.records import Instruction, Response, Split, StoredMedia
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import write_atomic

TableName = Literal["instructions", "responses"]
SCHEMA_VERSION = 2
MANIFEST_FILE = "manifest.json"
QUARANTINE_FILE = "quarantine.jsonl"
"""A line ``{"row", "reason"}`` for each row of the source that could not be used."""
_MEDIA = pa.struct(
    [
        ("sha256", pa.string()),
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
INSTRUCTIONS = pa.schema(
    [
        ("uid", pa.string()),
        ("split", pa.string()),
        ("messages", pa.string()),  # JSON: the parts of turns differ in their fields
        ("media", pa.list_(_MEDIA)),
        ("num_responses", pa.int32()),
        ("meta", pa.string()),  # JSON, as every reader has its own
    ]
)
RESPONSES = pa.schema(
    [
        ("uid", pa.string()),
        ("response_index", pa.int32()),
        ("text", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float64()),
        ("critique", pa.string()),
        ("corrected_spans", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())]))),
        ("provenance", pa.string()),
        ("preferred_to", pa.list_(pa.int32())),
        ("tied_with", pa.list_(pa.int32())),
    ]
)
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
TABLES: dict[TableName, pa.Schema] = {"instructions": INSTRUCTIONS, "responses": RESPONSES}


class _Fixed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Counts(_Fixed):
    """Totals over the store."""

    instructions: int
    responses: int
    unvalued_responses: int
    """Without a rank and without a score."""
    bad_rows: int
    """Rows of the source that are in ``quarantine.jsonl`` and nowhere else."""


class Part(_Fixed):
    """Two files with the same row groups: some instructions of one split, and the responses to them."""

    split: Split
    number: int
    row_groups: tuple[tuple[int, int], ...]
    """Instructions and responses in each."""

    def file(self, table: TableName) -> str:
        """Path inside the store."""
        return f"{table}/{self.split}-{self.number:05d}.parquet"


class Manifest(_Fixed):
    """All of ``manifest.json``."""

    schema_version: Literal[2] = SCHEMA_VERSION
    reader: str
    """Name of the format that was read, or the user's reader and its digest."""
    source_name: str
    source_sha256: str
    media_root: str
    """Folder that media paths are relative to."""
    held_out_frac: float
    counts: Counts
    fingerprint: str
    """SHA-256 over every row: a resumed run and a side table must see the same data."""
    parts: tuple[Part, ...]
    notes: Notes
    """What people should be told of the source."""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make ``folder`` a store."""
    write_atomic(folder / MANIFEST_FILE, manifest.model_dump_json(indent=1))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished store.

    Raises:
        RefusedInput: there is none, or it is not one of this version.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise RefusedInput(f"store {str(folder)!r} has no {MANIFEST_FILE}: it does not exist, or was never finished")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        version = stored.get("schema_version") if isinstance(stored, dict) else None
        if version != SCHEMA_VERSION:
            raise RefusedInput(
                f"store {str(folder)!r} has schema_version {version}, expected {SCHEMA_VERSION}: import its file again"
            )
        return Manifest.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RefusedInput(f"store {str(folder)!r} has a bad {MANIFEST_FILE}: {field}: {first['msg']}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RefusedInput(f"store {str(folder)!r} has a {MANIFEST_FILE} that is not JSON") from error


def instruction_table(instructions: Sequence[Instruction]) -> pa.Table:
    """Rows of ``instructions``."""
    rows = [
        {
            "uid": i.uid,
            "split": i.split,
            "messages": to_json(i.messages),
            "media": [{name: getattr(m, name) for name in _MEDIA.names} for m in i.media],
            "num_responses": len(i.responses),
            "meta": to_json(i.meta),
        }
        for i in instructions
    ]
    return pa.Table.from_pylist(rows, schema=INSTRUCTIONS)


def response_table(instructions: Sequence[Instruction]) -> pa.Table:
    """Rows of ``responses``, in the order of their instructions."""
    rows = [
        {
            "uid": instruction.uid,
            "response_index": index,
            "text": r.text,
            "rank": r.rank,
            "score": r.score,
            "critique": r.critique,
            "corrected_spans": None
            if r.corrected_spans is None
            else [{"start": start, "end": end} for start, end in r.corrected_spans],
            "provenance": r.provenance,
            "preferred_to": r.preferred_to,
            "tied_with": r.tied_with,
        }
        for instruction in instructions
        for index, r in enumerate(instruction.responses)
    ]
    return pa.Table.from_pylist(rows, schema=RESPONSES)


def rows_of(instructions: pa.Table, responses: pa.Table) -> list[Instruction]:
    """Records of both tables, responses following their instructions."""
    answers = [_response(*row) for row in _rows(responses.select(RESPONSES.names[2:]))]
    ends = np.cumsum(instructions["num_responses"].to_numpy()).tolist()
    starts = [0, *ends[:-1]]
    names = ["uid", "split", "messages", "media", "meta"]
    return [
        Instruction(
            uid=uid,
            split=split,
            messages=_turns(messages),
            media=tuple(_media(m) for m in media),
            responses=tuple(answers[start:end]),
            meta=_object(meta),
        )
        for (uid, split, messages, media, meta), start, end in zip(
            _rows(instructions.select(names)), starts, ends, strict=True
        )
    ]


def _turns(text: str) -> tuple[dict[str, Any], ...]:
    turns = json.loads(text)
    for turn in turns:
        for part in turn["content"]:
            if part["type"] != "image" and not (part["type"] == "text" and isinstance(part["text"], str)):
                raise ValueError(f"a turn has the part {part!r}")
        if turn["role"] not in ("system", "user", "assistant"):
            raise ValueError(f"a turn has the role {turn['role']!r}")
    return tuple(turns)


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"its meta is {value!r}")
    return value


def to_json(value: Any) -> str:
    """One spelling for one value, which fingerprints rely on."""
    return _ENCODER.encode(value)


def _rows(table: pa.Table) -> Any:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _response(
    text: str,
    rank: int | None,
    score: float | None,
    critique: str | None,
    spans: list[dict[str, int]] | None,
    provenance: str | None,
    preferred_to: list[int] | None,
    tied_with: list[int] | None,
) -> Response:
    return Response(
        text=text,
        rank=rank,
        score=score,
        critique=critique,
        corrected_spans=None if spans is None else tuple((span["start"], span["end"]) for span in spans),
        provenance=provenance,
        preferred_to=None if preferred_to is None else tuple(preferred_to),
        tied_with=None if tied_with is None else tuple(tied_with),
    )


def _media(fields: dict[str, Any]) -> StoredMedia:
    # Lexical: what a link may point at is held by the digest, which whoever opens the file compares.
    if ".." in (parts := fields["path"].split("/")) or parts[0] == "":
        raise ValueError(f"media path {fields['path']!r} leaves the media root")
    return StoredMedia(**fields)
