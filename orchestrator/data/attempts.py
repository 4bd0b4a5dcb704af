"""How hard pairs are: what an annotator model made of their judgements before they are learned from.

A table of predictions, as ``orchestrator.evaluate`` writes it for a file of judgements, or JSONL with a row
``{"id", "verdicts": ["1", null, ...]}`` or ``{"id", "right", "tried"}`` for each judgement. Invariants: attempts are
known by the id of their row, which holds a digest of what it says; and a pair that was tried in both orders is as hard
as in the harder one by whatever it is kept by, for whoever always says "1" solves each of them once.

Source: R1-Reward, https://arxiv.org/abs/2505.02835, section 4: up to three attempts of GPT-4o, their number kept as the
difficulty; learned from is what the first one did not solve.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.data.judgements import LABELS, pair_of
from orchestrator.data.rows import BadRow, read_json_rows, shown
from orchestrator.data.table_rows import is_table, read_table_rows
from orchestrator.data.verdicts import parse_verdict
from orchestrator.errors import RefusedInput

_COLUMNS = ("id", "sample", "status", "text")
"""Of a table of predictions."""
_MOST_TRIED = 1_000_000
"""Far above what anybody asks, and within the column that a table has for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """Attempts at one judgement."""

    right: int
    tried: int
    first_right: int | None
    """Number of the first that was right, from 1; None where none was, or that is not known."""
    in_order: bool = True
    """Whether it is known which ones were right."""


def tries_of(right: Sequence[bool]) -> Tries:
    """Of attempts in their order."""
    first = next((number for number, one in enumerate(right, start=1) if one), None)
    return Tries(right=sum(right), tried=len(right), first_right=first)


@dataclass(frozen=True, slots=True)
class Attempts:
    """Those of a file, by pair."""

    name: str
    by_pair: Mapping[str, tuple[Tries, ...]]
    """Of each of its orders that was tried."""

    def refuse_unordered(self) -> None:
        """Stop where nobody knows what the first attempts said.

        Raises:
            RefusedInput: naming the pair.
        """
        for uid, orders in self.by_pair.items():
            if not all(tries.in_order for tries in orders):
                raise RefusedInput(
                    f"attempts {self.name!r} say of {uid!r} how many were right and not which: give --right LEAST MOST"
                )


@dataclass(slots=True, kw_only=True)
class Chosen:
    """Keeps pairs by their attempts, and counts."""

    attempts: Attempts
    right: tuple[int, int] | None
    """Least and most attempts that were right; None keeps what the first attempt did not solve."""
    num_kept: int = 0
    num_dropped: int = 0
    num_untried: int = 0
    _met: set[str] = field(default_factory=set)

    def keeps(self, uid: str) -> bool:
        """Whether a pair is kept; one without attempts is not."""
        if uid not in self.attempts.by_pair:
            self.num_untried += 1
            return False
        self._met.add(uid)
        tries = self._hardest(uid)
        kept = tries.first_right != 1 if self.right is None else self.right[0] <= tries.right <= self.right[1]
        self.num_kept, self.num_dropped = self.num_kept + kept, self.num_dropped + (not kept)
        return kept

    def columns(self, uid: str) -> dict[str, int | None]:
        """What a row says of its attempts."""
        tries = self._hardest(uid)
        return {"right": tries.right, "tried": tries.tried, "difficulty": tries.first_right}

    def _hardest(self, uid: str) -> Tries:
        """The attempts at the harder order: right last, or where they are kept by their number, right least."""
        return max(self.attempts.by_pair[uid], key=_first_then_number if self.right is None else _number_then_first)

    def lines(self) -> Iterator[str]:
        """The counts, for people."""
        kept = "not solved at the first attempt" if self.right is None else "solved {} to {} times".format(*self.right)
        yield (
            f"tried   {self.num_kept + self.num_dropped} pairs: {self.num_kept} kept, {kept}, "
            f"{self.num_dropped} dropped; {self.num_untried} without attempts are dropped too"
        )
        if unmet := len(self.attempts.by_pair) - len(self._met):
            first = next(uid for uid in self.attempts.by_pair if uid not in self._met)
            yield f"        attempts at {unmet} pairs that are not here, {shown(first)} is the first"


def read_attempts(path: Path) -> Attempts:
    """All attempts of a file.

    Raises:
        RefusedInput: it cannot be read, or a row is none of those above.
    """
    if not path.is_file():
        raise RefusedInput(f"attempts {str(path)!r} are not a file")
    found = _of_predictions(path) if is_table(path) else _of_json(path)
    by_pair: dict[str, tuple[Tries, ...]] = {}
    for row_id, tries in found:
        uid, _ = pair_of(row_id)
        by_pair[uid] = (*by_pair.get(uid, ()), tries)
    if not by_pair:
        raise RefusedInput(f"attempts {str(path)!r} are at no judgement")
    return Attempts(str(path), by_pair)


def _first_then_number(tries: Tries) -> tuple[float, int]:
    return math.inf if tries.first_right is None else tries.first_right, -tries.right


def _number_then_first(tries: Tries) -> tuple[int, float]:
    first, number = _first_then_number(tries)
    return number, first


def _of_predictions(path: Path) -> Iterator[tuple[str, Tries]]:
    said: dict[str, dict[int, bool]] = {}
    for number, row in enumerate(read_table_rows(path), start=1):
        if missing := [name for name in _COLUMNS if name not in row]:
            raise RefusedInput(f"attempts {str(path)!r} have no column {missing[0]!r}: they are no predictions")
        if row["status"] == "answered":
            row_id, label = _known(path, number, row["id"])
            sample, text = row["sample"], row["text"]
            if type(sample) is not int or sample < 0:
                raise _refused(path, number, f"field 'sample' is {shown(sample)}, expected a whole number from 0")
            if not isinstance(text, str):
                raise _refused(path, number, f"field 'text' is {shown(text)}, expected what was answered")
            said.setdefault(row_id, {})[sample] = parse_verdict(text) == label
    for row_id, samples in said.items():
        yield row_id, tries_of([samples[sample] for sample in sorted(samples)])


def _of_json(path: Path) -> Iterator[tuple[str, Tries]]:
    seen = set[str]()
    for row in read_json_rows(path):
        if isinstance(row, BadRow):
            raise _refused(path, row.row, row.reason)
        fields = row.value if isinstance(row.value, dict) else {}
        row_id, label = _known(path, row.number, fields.get("id"))
        if row_id in seen:
            raise _refused(path, row.number, f"id {shown(row_id)} is there twice")
        seen.add(row_id)
        yield row_id, _tries(path, row.number, fields, label)


def _tries(path: Path, number: int, fields: Mapping[str, Any], label: str) -> Tries:
    if "verdicts" in fields:
        verdicts = fields["verdicts"]
        known = isinstance(verdicts, list) and all(one is None or str(one) in LABELS for one in verdicts)
        if not known or not verdicts:
            raise _refused(path, number, f"field 'verdicts' is {shown(verdicts)}, expected a list of 1, 2 or null")
        return tries_of([str(one) == label for one in verdicts])
    right, tried = fields.get("right"), fields.get("tried")
    if type(right) is not int or type(tried) is not int or not 0 <= right <= tried or not 0 < tried <= _MOST_TRIED:
        both = f"fields 'right' and 'tried' are {shown(right)} and {shown(tried)}"
        raise _refused(path, number, f"{both}, expected counts, at most {_MOST_TRIED}")
    return Tries(right=right, tried=tried, first_right=None, in_order=False)


def _known(path: Path, number: int, row_id: Any) -> tuple[str, str]:
    """The id of a judgement, and the verdict that would be right."""
    label = pair_of(row_id)[1] if isinstance(row_id, str) else ""
    if not label:
        raise _refused(
            path, number, f"field 'id' is {shown(row_id)}, expected the id of a judgement that was made here"
        )
    return row_id, label


def _refused(path: Path, number: int, reason: str) -> RefusedInput:
    return RefusedInput(f"attempts {str(path)!r}, row {number}: {reason}")
