"""Between records and Arrow tables: the two schemas, and the way there and back."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.data.manifest import TableName
from orchestrator.data.records import Instruction, Response, StoredMedia

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
            messages=tuple(json.loads(messages)),
            media=tuple(_media(m) for m in media),
            responses=tuple(answers[start:end]),
            meta=json.loads(meta),
        )
        for (uid, split, messages, media, meta), start, end in zip(
            _rows(instructions.select(names)), starts, ends, strict=True
        )
    ]


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
