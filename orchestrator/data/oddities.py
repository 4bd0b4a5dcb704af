"""Rows that are not as the others of their file, each kind counted with its first example."""

import hashlib
import json
from collections.abc import Iterator

from algorithms.preference_registry import PREFERENCE_ALGORITHMS
from orchestrator.data.choice import choose
from orchestrator.data.counted import Counted
from orchestrator.data.dataset import BadRow, uid_parts
from orchestrator.data.records import Instruction

_WAYS = {
    "dpo": "pairs (dpo and the like)",
    "kto": "labels (kto)",
    "sft": "imitation (sft)",
    "critique_rm": "critiques (critique_rm)",
}
"""An algorithm for each way to learn from responses."""


class Oddities:
    """Counts over the good rows that pass by."""

    def __init__(self, *, compares_rows: bool) -> None:
        """Begin at nothing.

        Args:
            compares_rows: Keeps a digest of every row in memory, which a store of any length must not.
        """
        self._compares = compares_rows
        self._num_rows = 0
        self._bare = Counted("rows without an image")
        self._repeated = Counted("rows like an earlier one")
        self._contradicted = Counted("rows with another label than an earlier one")
        self._same_id = Counted("ids given twice")
        self._seen: dict[bytes, int] = {}
        self._labels: dict[bytes, tuple[str, int]] = {}
        self._ids: dict[str, int] = {}
        self._unused = {algo: Counted(f"rows not learned from by {way}") for algo, way in _WAYS.items()}
        self._num_instructions = 0

    def add(self, instruction: Instruction) -> None:
        """Look at a row, or at one of the instructions that it became, which follow each other."""
        _, row, answer = uid_parts(instruction.uid)
        self._num_instructions += 1
        for algo, counted in self._unused.items():
            reason = choose(instruction.responses, PREFERENCE_ALGORITHMS[algo], score_margin=0.0)
            if isinstance(reason, str):
                counted.add(BadRow(row, reason))
        if answer > 1:
            return
        self._num_rows += 1
        if not instruction.media:
            self._bare.add(BadRow(row, "others have one"))
        if self._compares:
            self._compare(instruction, row)

    def lines(self) -> Iterator[str]:
        """What there is to tell."""
        if self._bare.total < self._num_rows:
            yield from self._bare.lines(self._num_rows)
        for counted in (self._repeated, self._contradicted, self._same_id):
            yield from counted.lines(self._num_rows)
        for counted in self._unused.values():
            # Who learns from none of them is not whom they were written for.
            if counted.total < self._num_instructions:
                yield from counted.lines(self._num_instructions)

    def _compare(self, instruction: Instruction, row: int) -> None:
        asked = [instruction.messages, [media.sha256 for media in instruction.media]]
        label, given = instruction.meta.get("label"), instruction.meta.get("id")
        said = [[r.text, r.rank, r.score] for r in instruction.responses]
        first = self._seen.setdefault(_digest([*asked, label, said]), row)
        if first != row:
            self._repeated.add(BadRow(row, f"the same as row {first}"))
        if label is not None:
            other, before = self._labels.setdefault(_digest(asked), (label, row))
            if other != label:
                self._contradicted.add(BadRow(row, f"the question of row {before}, whose label is {other}"))
        if given is not None:
            first = self._ids.setdefault(str(given), row)
            if first != row:
                self._same_id.add(BadRow(row, f"the id of row {first}"))


def _digest(content: object) -> bytes:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).digest()
