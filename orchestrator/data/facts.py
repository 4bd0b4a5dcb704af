"""What is known to be true of a sample beside its picture: captions, rationales. Reward models are told, no policy is.

Facts stand in the row, or in files ``{"id of the row": ["a fact", ...]}`` that are joined by the row's own id, never by
what a picture is called: two samples of one picture may have facts of their own. A sample in several files has those of
all, in the order of the files.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator.data.keys import is_empty
from orchestrator.data.readers.draft import Draft
from orchestrator.data.rows import RowError, file_sha256, shown, unicode_text
from orchestrator.errors import RefusedInput
from workers.given_files import TABLE, read_text

FIELDS = ("facts", "captions")
"""Of a row; one of them."""
META = "facts"
"""Where a prompt and an instruction have them."""


def row_facts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The facts that stand in a row, a text or a list of texts; none where the fields are empty.

    Raises:
        RowError: both fields are given, or one holds something else.
    """
    given = [name for name in FIELDS if not is_empty(row.get(name))]
    if len(given) > 1:
        raise RowError(f"fields {given[0]!r} and {given[1]!r} are both given, expected one")
    if not given:
        return ()
    value = row[given[0]]
    facts = [value] if isinstance(value, str) else value
    if not _are_texts(facts):
        raise RowError(f"field {given[0]!r} is {shown(value)}, expected texts")
    return tuple(unicode_text(fact, given[0]) for fact in facts)


@dataclass(frozen=True, slots=True)
class FactFiles:
    """The facts of some files, by id of the sample."""

    paths: tuple[Path, ...]
    option: str = "--facts"
    """Name that ``paths`` has for whoever asks."""

    def joined(self, draft: Draft) -> Draft:
        """The draft with the facts of its own sample, behind those of its row; as it is where there are no files.

        Raises:
            RowError: it has no id, or no file has facts for it.
            RefusedInput: a file cannot be read.
        """
        if not self.paths:
            return draft
        sample = draft.meta.get("id")
        if sample is None:
            raise RowError(f"the row has no 'id', by which {self._named()} would tell its facts")
        files = [_facts_in(path, self.option) for path in self.paths]
        found = [fact for facts in files for fact in facts.get(str(sample), ())]
        if not found:
            known = [name for facts in files for name in facts]
            told = f"{len(known)} samples, the first is {shown(known[0])}" if known else "no sample"
            raise RowError(f"sample {shown(str(sample))} has no facts in {self._named()}, which has {told}")
        own = draft.meta.get(META, [])
        return replace(draft, meta=draft.meta | {META: list(dict.fromkeys([*own, *found]))})

    def digests(self) -> list[str]:
        """Of the files, in their order.

        Raises:
            RefusedInput: one is missing.
        """
        return [file_sha256(path) for path in self.paths]

    def _named(self) -> str:
        return " and ".join(repr(path.name) for path in self.paths)


NO_FACTS = FactFiles(())
"""Rows have those that stand in them."""


@lru_cache(maxsize=8)
def _read(path: Path, _stamp: tuple[int, int], option: str) -> dict[str, tuple[str, ...]]:
    """The whole of a file; again where it has changed since."""
    try:
        stored = json.loads(read_text(path, most=TABLE), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        told = str(error) if isinstance(error, _Repeated) else "it cannot be read as JSON"
        raise RefusedInput(f"{option} {str(path)!r}: {told}") from error
    if not isinstance(stored, dict):
        raise RefusedInput(f'{option} {str(path)!r}: it is no object {{"id of the row": ["a fact", ...]}}')
    for sample, facts in stored.items():
        if not facts or not _are_texts(facts):
            raise RefusedInput(f"{option} {str(path)!r}: sample {shown(sample)} has {shown(facts)}, expected texts")
    return {sample: tuple(facts) for sample, facts in stored.items()}


def _facts_in(path: Path, option: str) -> dict[str, tuple[str, ...]]:
    if not path.is_file():
        raise RefusedInput(f"{option} {str(path)!r} is not a file")
    status = path.stat()
    return _read(path, (status.st_mtime_ns, status.st_size), option)


def _are_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


class _Repeated(ValueError):
    """A sample that stands twice, of which JSON readers keep the last without a word."""


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise _Repeated(f"sample {shown(name)} is there twice")
        made[name] = value
    return made
