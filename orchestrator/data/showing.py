"""Rows and counts of them in lines for people."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from algorithms.algorithm import Needs
from orchestrator.data.choice import choose
from orchestrator.data.counted import Counted, refuse_no_rows
from orchestrator.data.keys import Notes
from orchestrator.data.pairs import preference_pairs
from orchestrator.data.reading import read_records
from orchestrator.data.records import Instruction, Response
from orchestrator.data.rows import BadRow, row_uid, shown, uid_parts
from orchestrator.data.source_file import SourceFile
from orchestrator.data.store import PreferenceStore
from orchestrator.errors import RefusedInput

_WAYS = {
    "dpo": "pairs (dpo and the like)",
    "kto": "labels (kto)",
    "sft": "imitation (sft)",
    "critique_rm": "critiques (critique_rm)",
}
"""An algorithm for each way to learn from responses."""
_NEEDS = {
    "dpo": Needs(data=("preferences",), responses="pairs"),
    "kto": Needs(data=("preferences",), responses="labels"),
    "sft": Needs(data=("preferences",), responses="best"),
    "critique_rm": Needs(data=("preferences",), responses="pairs", critiques=True),
}


def tally(source: PreferenceStore | SourceFile, notes: Notes, *, bad: Callable[[BadRow], None]) -> "Tally":
    """Counts over all rows of a store or of a file, each bad one told as it comes.

    Args:
        notes: Of the store; those of the file are noted.
    Raises:
        RefusedInput: the file or store cannot be read at all.
    """
    found = Tally(of_file=isinstance(source, SourceFile))
    whole = isinstance(source, PreferenceStore)
    for record in chain(source.bad_rows(), source.rows()) if whole else read_records(source, notes=notes):
        found.add(record)
        if isinstance(record, BadRow):
            bad(record)
    return found


def row_lines(source: PreferenceStore | SourceFile, row: int, *, name: str) -> Iterator[str]:
    """One row as a model will see it.

    Args:
        name: What the file or store was called by.
    Raises:
        RefusedInput: the file or store cannot be read at all, the row is bad, or there is no such row.
    """
    if isinstance(source, PreferenceStore):
        found = source.find(row_uid(Path(source.manifest.source_name), row))
        bad_rows, total = source.bad_rows(), source.manifest.notes.num_rows
    else:
        uid, notes, bad_rows = row_uid(source.path, row), Notes(), list[BadRow]()
        found = list[Instruction]()
        for record in read_records(source, notes=notes):
            if isinstance(record, BadRow):
                bad_rows.append(record)
            elif uid_parts(record.uid)[0] == uid:
                found.append(record)
        total = notes.num_rows
        refuse_no_rows(total + len(bad_rows), name=name)
    for bad in bad_rows:
        if bad.row == row:
            raise RefusedInput(f"row {bad.row}: {bad.reason}")
    if not found:
        raise RefusedInput(f"--row {row} is no row of {name!r}, which holds {total + len(bad_rows)}")
    for instruction in found:
        yield from _instruction_lines(instruction, media_root=source.media_root)


class Tally:
    """Counts over rows that pass by."""

    def __init__(self, *, of_file: bool) -> None:
        """Begin at nothing.

        Args:
            of_file: Tells images and rows apart by digests in memory, which a store of any length must not.
        """
        self._odd = _Oddities(compares_rows=of_file)
        self.num_good, self.num_bad = 0, 0
        self._instructions, self._context = 0, 0
        self._row_images = 0
        self._digests: set[str] | None = set() if of_file else None
        self._images = 0
        self._labels: Counter[str] = Counter()
        self._splits: Counter[str] = Counter()
        self._responses, self._valued = 0, 0
        self._pairs, self._unpaired = 0, 0
        self._added, self._with_added = 0, 0

    def add(self, record: Instruction | BadRow) -> None:
        """Count a bad row, or one of the instructions that a good one became, which follow each other."""
        if isinstance(record, BadRow):
            self.num_bad += 1
            return
        self._odd.add(record)
        self._instructions += 1
        if uid_parts(record.uid)[2] == 1:
            self.num_good += 1
            self._row_images = 0
            self._context += sum(turn["role"] == "assistant" for turn in record.messages)
        # The later prompts of a conversation hold the images of the earlier ones.
        self._images += len(record.media) - self._row_images
        self._row_images = len(record.media)
        if self._digests is not None:
            self._digests.update(media.sha256 for media in record.media)
        self._splits[record.split] += 1
        if "label" in record.meta:
            self._labels[record.meta["label"]] += 1
        self._responses += len(record.responses)
        self._valued += sum(r.is_valued for r in record.responses)
        pairs = len(preference_pairs(record.responses, score_margin=0.0))
        self._pairs += pairs
        self._unpaired += pairs == 0
        added = record.meta.get("num_pairs_added", 0)
        self._added += added
        self._with_added += added > 0

    def lines(self, notes: Notes) -> Iterator[str]:
        """The counts that say something about these rows, what else is told of the file, and what is odd in it."""
        yield from self._counts()
        yield from notes.lines()
        yield from self._odd.lines()

    def _counts(self) -> Iterator[str]:
        yield f"rows    {self.num_good + self.num_bad}: {self.num_good} good, {self.num_bad} bad"
        yield f"images  {self._images}" if self._digests is None else f"images  {len(self._digests)} different"
        if self._splits["held_out"]:
            yield f"splits  {self._splits['train']} train, {self._splits['held_out']} held out"
        if self._instructions > self.num_good:
            yield f"learned {self._instructions} answers: every one of a conversation"
        if self._context:
            yield f"context {self._context} earlier answers stand in prompts: nothing is learned from them"
        if set(self._labels) - {"1", "2"}:
            first = next(iter(self._labels))
            yield f"labels  {self._labels.total()} rows have one, {len(self._labels)} different, such as {shown(first)}"
        elif self._labels:
            yield f"labels  {self._labels['1']} say 1, {self._labels['2']} say 2"
        if self._responses:
            yield f"responses  {self._responses}, {self._valued} with a rank or a score"
        if self._valued:
            yield f"pairs   {self._pairs}; {self._unpaired} rows make none"
        if self._added:
            yield f"added   {self._added} of the pairs are in no line of the file, in {self._with_added} rows"


def _instruction_lines(instruction: Instruction, *, media_root: Path) -> Iterator[str]:
    yield f"uid    {instruction.uid}"
    if "label" in instruction.meta:
        yield f"label  {instruction.meta['label']}"
    media = iter(instruction.media)
    for turn in instruction.messages:
        yield f"{turn['role']}:"
        for part in turn["content"]:
            if part["type"] == "text":
                yield from (f"  {line}" for line in part["text"].split("\n"))
            else:
                image = next(media)
                yield f"  [image {media_root / image.path}, {image.width} x {image.height}]"
    for number, response in enumerate(instruction.responses, start=1):
        yield _response_head(response, number, len(instruction.responses))
        yield from (f"  {line}" for line in response.text.split("\n"))


def _response_head(response: Response, number: int, total: int) -> str:
    told = ["response" if total == 1 else f"response {number} of {total}"]
    told += [] if response.rank is None else [f"rank {response.rank}"]
    told += [] if response.score is None else [f"score {response.score:g}"]
    told += [] if not response.preferred_to else [f"preferred to {_numbers(response.preferred_to)}"]
    told += [] if not response.tied_with else [f"as good as {_numbers(response.tied_with)}"]
    told += [] if response.provenance is None else [f"by {response.provenance}"]
    return ", ".join(told) + ":"


def _numbers(indices: tuple[int, ...]) -> str:
    return " and ".join(str(index + 1) for index in indices)


class _Oddities:
    """Good rows that are not as the others of their file, each kind counted with its first example."""

    def __init__(self, *, compares_rows: bool) -> None:
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
            reason = choose(instruction.responses, _NEEDS[algo], score_margin=0.0)
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
