"""What says that a store holds the rows it was made of: a digest over all of a row that a model or a loss sees."""

import hashlib
from dataclasses import fields
from operator import attrgetter
from typing import Any

from orchestrator.data.records import Instruction, Response
from orchestrator.data.rows import uid_parts
from orchestrator.data.store_files import to_json

# Not dataclasses.asdict, which copies deeply: half the time of an import.
_RESPONSE_FIELDS = attrgetter(*(field.name for field in fields(Response)))
_SCORE = [field.name for field in fields(Response)].index("score")


class RowsDigest:
    """SHA-256 over rows in the order of their uids."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, instruction: Instruction) -> None:
        """Count the next row."""
        row = [
            instruction.uid,
            instruction.split,
            instruction.messages,
            [m.sha256 for m in instruction.media],
            [_told(r) for r in instruction.responses],
            instruction.meta,
        ]
        self._digest.update(to_json(row).encode() + b"\n")

    def hexdigest(self) -> str:
        """Of the rows so far."""
        return self._digest.hexdigest()


def uid_place(uid: str) -> tuple[int, str, int]:
    """By what uids ascend in a store: shorter ones first."""
    row, _, answer = uid_parts(uid)
    return len(row), row, answer


def _told(response: Response) -> list[Any]:
    told = list(_RESPONSE_FIELDS(response))
    if told[_SCORE] is not None:
        told[_SCORE] = float(told[_SCORE])  # as the table gives it back, whatever number a reader made
    return told
