"""What is left out, counted for people by reason, each reason with its first example."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.data.keys import Notes
from orchestrator.data.rows import BadRow
from orchestrator.errors import RefusedInput

_VALUE = re.compile(r"(?<!field )'[^']*'|\"[^\"]*\"|\d[\d.,]*")
"""What differs between rows that are left out for the same reason; the names of fields do not."""
_MOST_REASONS = 8


@dataclass(slots=True)
class _Reason:
    count: int
    first: BadRow


class Counted:
    """Counts over rows that pass by; reasons that differ in their values alone are one."""

    def __init__(self, what: str, rows: Iterable[BadRow] = ()) -> None:
        """
        Args:
            what: Is counted, e.g. ``rows not learned from``.
            rows: The first ones.
        """
        self.what = what
        self._reasons: dict[str, _Reason] = {}
        for row in rows:
            self.add(row)

    def add(self, row: BadRow, count: int = 1) -> None:
        """Count a row, or so many things of it."""
        if count:
            reason = self._reasons.setdefault(_VALUE.sub("_", row.reason), _Reason(0, row))
            reason.count += count

    @property
    def total(self) -> int:
        """All that was counted."""
        return sum(reason.count for reason in self._reasons.values())

    def lines(self, total: int) -> Iterator[str]:
        """What was counted, of ``total``; nothing where nothing was."""
        reasons = sorted(self._reasons.values(), key=lambda reason: -reason.count)
        if not reasons:
            return
        head = f"{self.what}: {self.total} of {total}"
        if len(reasons) == 1:
            yield f"{head}; the first is {_told(reasons[0].first)}"
            return
        yield f"{head}, for {len(reasons)} reasons"
        for reason in reasons[:_MOST_REASONS]:
            yield f"  {reason.count}; the first is {_told(reason.first)}"
        if rest := reasons[_MOST_REASONS:]:
            yield f"  {sum(reason.count for reason in rest)} for other reasons"

    def to_json(self, total: int) -> dict[str, Any]:
        """The same for a file."""
        reasons = sorted(self._reasons.values(), key=lambda reason: -reason.count)[:_MOST_REASONS]
        told = [{"count": r.count, "first_row": r.first.row, "reason": r.first.reason} for r in reasons]
        return {"count": self.total, "of": total, "reasons": told}


def _told(row: BadRow) -> str:
    return f"row {row.row}: {row.reason}"


class Told:
    """What people are told of data before they are learned from."""

    def __init__(self, notes: Notes | None = None) -> None:
        """
        Args:
            notes: Of the file, told after all that is counted.
        """
        self._counted: dict[str, Counted] = {}
        self._totals: dict[str, int] = {}
        self._notes = notes or Notes()

    def count(self, what: str, rows: Iterable[BadRow], *, total: int) -> None:
        """Tell of these rows beside those that are told of already, of ``total``."""
        counted = self._counted.setdefault(what, Counted(what))
        self._totals.setdefault(what, total)
        for row in rows:
            counted.add(row)

    def lines(self) -> Iterator[str]:
        """Nothing of what was not found."""
        for what, counted in self._counted.items():
            yield from counted.lines(self._totals[what])
        yield from self._notes.lines()

    def to_json(self) -> dict[str, Any]:
        """The same for a file, also of what was not found."""
        counted = {name.replace(" ", "_"): c.to_json(self._totals[name]) for name, c in self._counted.items()}
        return {**counted, "unknown_keys": unknown_keys(self._notes)}


def unknown_keys(notes: Notes) -> dict[str, Any]:
    """Keys that nobody reads, for a file."""
    return {key: {"count": count, "first_row": first} for key, (count, first) in notes.unknown_keys.items()}


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
