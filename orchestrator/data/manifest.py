"""A store's manifest: what was imported from where, and how many rows each file must have.

It is written last: a folder without one is no store.
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.data.keys import Notes
from orchestrator.data.records import Split
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import write_atomic

TableName = Literal["instructions", "responses"]
SCHEMA_VERSION = 2
MANIFEST_FILE = "manifest.json"
QUARANTINE_FILE = "quarantine.jsonl"
"""A line ``{"row", "reason"}`` for each row of the source that could not be used."""


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
