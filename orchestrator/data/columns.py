"""Other people's names for what a format reads: columns are renamed before a reader sees the row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.data.keys import is_empty
from orchestrator.data.rows import shown
from orchestrator.errors import RefusedInput


@dataclass(slots=True)
class Columns:
    """The renaming of one file, and which of the columns were met in it."""

    called: Mapping[str, str]
    """By the name that a format reads, the file's own."""
    option: str
    """Name of the setting, for refusals."""
    unmet: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.unmet = set(self.called.values())

    def renamed(self, row: Any, number: int) -> Any:
        """The row with the names that a format reads; whatever is no object as it is.

        Raises:
            RefusedInput: a name is taken by another column of the row that holds something.
        """
        if not self.called or not isinstance(row, dict):
            return row
        theirs = {name: key for key, name in self.called.items()}
        made = {key: value for key, value in row.items() if key not in theirs}
        for name in filter(row.__contains__, theirs):
            self.unmet.discard(name)
            if not is_empty(made.get(key := theirs[name])):
                raise RefusedInput(
                    f"{self.option}: row {number} has a column {key!r} of its own, {shown(made[key])}, beside {name!r}"
                )
            made[key] = row[name]
        return made

    def refuse_unmet(self, rows: Iterator[Any], *, name: str) -> Iterator[Any]:
        """The rows; behind the last, stop where no row had a column that was to be renamed.

        Raises:
            RefusedInput: naming it.
        """
        num_rows = 0
        for row in rows:
            num_rows += 1
            yield row
        if num_rows and self.unmet:
            told = ", ".join(f"{key} = {theirs!r}" for key, theirs in self.called.items() if theirs in self.unmet)
            raise RefusedInput(f"{self.option}: no row of {name!r} has the column of {told}")
