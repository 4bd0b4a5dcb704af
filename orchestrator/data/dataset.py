"""What every reader returns, and the rule about bad rows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.data.keys import Notes
from orchestrator.errors import RefusedInput, one_line
from workers.types import Prompt

_MOST_CHARS = 600


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used."""

    row: int
    """1-based: the line of a JSONL file, the element of a JSON array."""
    reason: str
    """One sentence naming field and value, cut to a line."""

    def __post_init__(self) -> None:
        # A row may hold anything, e.g. a whole picture where a name is expected.
        object.__setattr__(self, "reason", one_line(self.reason, most=_MOST_CHARS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Usable prompts in file order, and every row that is not."""

    prompts: tuple[Prompt, ...]
    bad_rows: tuple[BadRow, ...]
    fingerprint: str
    """SHA-256 over rows and media digests: a resumed run must see the same data."""
    notes: Notes = field(default_factory=Notes)
    """What people should be told of the file once."""


_UID = re.compile(r"(.*-(\d+))(?:\.(\d+))?", re.S)


def row_uid(path: Path, number: int, *, answer: int | None = None) -> str:
    """The uid of a row: the file's name and the row's number.

    Args:
        answer: 1-based number of the answer that is learned, of a conversation with several.
    """
    return f"{path.stem}-{number:06d}" + ("" if answer is None else f".{answer}")


def uid_parts(uid: str) -> tuple[str, int, int]:
    """Uid of the row, its number, and the number of its answer; 1 where it has but one."""
    found = _UID.fullmatch(uid)
    return (uid, 0, 1) if found is None else (found[1], int(found[2]), int(found[3] or 1))


def refuse_empty(dataset: Dataset, *, name: str) -> None:
    """Stop when the file holds no row, good or bad.

    Raises:
        RefusedInput: naming the file.
    """
    refuse_no_rows(len(dataset.prompts) + len(dataset.bad_rows), name=name)


def refuse_bad_rows(dataset: Dataset, *, name: str, max_bad_frac: float) -> None:
    """Stop when more rows are bad than allowed, or none is good.

    Raises:
        RefusedInput: with the count, the bound and the first bad row.
    """
    refuse_bad_share(
        dataset.bad_rows,
        num_good=len(dataset.prompts),
        name=name,
        option="data.max_bad_frac",
        max_bad_frac=max_bad_frac,
    )


def refuse_no_rows(total: int, *, name: str) -> None:
    """Stop when a file holds no row.

    Raises:
        RefusedInput: naming the file.
    """
    if total == 0:
        raise RefusedInput(f"data file {name!r} is empty: 0 rows, at least 1 is needed")


def refuse_bad_share(bad_rows: Sequence[BadRow], *, num_good: int, name: str, option: str, max_bad_frac: float) -> None:
    """Stop when more rows are bad than the option allows, none is good, or there is none.

    Raises:
        RefusedInput: with the count, the bound and the first bad row.
    """
    bad, total = len(bad_rows), len(bad_rows) + num_good
    refuse_no_rows(total, name=name)
    if bad == total:
        bound = "at least 1 must be usable"
    elif bad > max_bad_frac * total:
        bound = f"{option} = {max_bad_frac:g} allows {int(max_bad_frac * total)}"
    else:
        return
    first = bad_rows[0]
    raise RefusedInput(
        f"data file {name!r} has {bad} bad rows out of {total}, {bound}; the first is row {first.row}: {first.reason}"
    )
