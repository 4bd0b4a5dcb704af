"""A store as an endless stream of examples with a position that a checkpoint can keep."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from algorithms.records import Example
from orchestrator.data.counted import Counted
from orchestrator.data.records import Instruction
from orchestrator.data.rows import BadRow, uid_parts
from orchestrator.data.side_tables import SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.errors import RefusedInput
from orchestrator.run.cursor import PromptCursor

_log = logging.getLogger(__name__)


class ExampleStream:
    """The training split, shuffled anew in every epoch; instructions that make no example are passed over."""

    def __init__(
        self,
        store: PreferenceStore,
        encode: Callable[[Instruction], Example | str],
        *,
        side_tables: Mapping[str, SideTable],
    ) -> None:
        self._store, self._encode, self._side = store, encode, side_tables
        self._rows: Iterator[Instruction] = iter(())
        self._at: PromptCursor | None = None

    def take(self, cursor: PromptCursor, count: int) -> tuple[list[Example], PromptCursor, Sequence[str]]:
        """The next ``count`` examples from ``cursor`` on, the cursor behind them, and who was passed over, and why.

        Raises:
            RefusedInput: a whole epoch without an example; or the store is damaged.
        """
        if cursor != self._at:
            self._open(cursor)
        examples: list[Example] = []
        passed_over: list[str] = []
        since_last = 0
        while len(examples) < count:
            row = next(self._rows)
            made = self._encode(row)
            cursor = _after(cursor)
            if cursor.position == 0:
                self._open(cursor)
            if isinstance(made, Example):
                examples.append(made)
                since_last = 0
                continue
            since_last += 1
            passed_over.append(row.uid)
            _log.warning("instruction %s is passed over: %s", row.uid, made)
            if since_last >= cursor.num_prompts:
                raise RefusedInput(f"data.path: no instruction can be used; the last is {row.uid}: {made}")
        self._at = cursor
        return examples, cursor, passed_over

    def _open(self, cursor: PromptCursor) -> None:
        self._rows = self._store.iterate(
            "train", seed=cursor.seed, epoch=cursor.epoch, start=cursor.position, side_tables=self._side
        )


def encoded(
    rows: Iterable[Instruction], encode: Callable[[Instruction], Example | str]
) -> tuple[list[Example], Counted]:
    """The examples that these instructions make, and how many make none; these are named in the log."""
    examples: list[Example] = []
    left_out = Counted("held-out rows left out")
    for row in rows:
        made = encode(row)
        if isinstance(made, Example):
            examples.append(made)
        else:
            left_out.add(BadRow(uid_parts(row.uid)[1], made))
            _log.warning("held-out instruction %s is left out: %s", row.uid, made)
    return examples, left_out


def _after(cursor: PromptCursor) -> PromptCursor:
    if cursor.position + 1 == cursor.num_prompts:
        return replace(cursor, epoch=cursor.epoch + 1, position=0)
    return replace(cursor, position=cursor.position + 1)
