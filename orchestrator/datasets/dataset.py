"""What every reader returns, and the rule about bad rows."""

from dataclasses import dataclass

from orchestrator.errors import RefusedInput
from workers.types import Prompt


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used."""

    row: int
    """1-based: the line of a JSONL file, the element of a JSON array."""
    reason: str


class RowError(ValueError):
    """Why a row cannot be used, in one sentence naming field and value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Usable prompts in file order, and every row that is not."""

    prompts: tuple[Prompt, ...]
    bad_rows: tuple[BadRow, ...]
    fingerprint: str
    """SHA-256 over rows and media digests: a resumed run must see the same data."""


def refuse_bad_rows(dataset: Dataset, *, name: str, max_bad_frac: float) -> None:
    """Stop when more rows are bad than allowed, or none is good.

    Raises:
        RefusedInput: with the count, the bound and the first bad row.
    """
    bad, total = len(dataset.bad_rows), len(dataset.bad_rows) + len(dataset.prompts)
    if total == 0:
        raise RefusedInput(f"data.path {name!r} is empty: no rows, at least 1 is needed")
    if bad and (bad > max_bad_frac * total or bad == total):
        first = dataset.bad_rows[0]
        raise RefusedInput(
            f"data.path {name!r}: {bad} of {total} rows are bad, allowed are {max_bad_frac:g} "
            f"(data.max_bad_frac); first is row {first.row}: {first.reason}"
        )
