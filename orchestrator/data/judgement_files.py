"""From instructions to a file of judgements, and what was made told beside it.

instructions ──► pairs, without their pictures, in a temporary file ──► which show the better response first ──► rows

Two passes, for who comes first depends on how many there are: of N judgements in one order each, half show the better
response first, to within one. Pictures pass through a few at a time. The file appears whole or not at all.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.config.requests import Request
from orchestrator.data.attempts import Chosen
from orchestrator.data.counted import Counted
from orchestrator.data.judgements import LABELS, JudgedPair, Label, judged_pairs, judgement_row
from orchestrator.data.order import permutation, stream_key
from orchestrator.data.records import Instruction, Split
from orchestrator.data.rows import BadRow, uid_parts
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import flush, write_atomic
from workers.given_files import PICTURE, UnusableFile, read_bytes

Orders = Literal["one", "both"]
Images = Literal["in_row", "path"]
SUFFIXES = (".parquet", ".jsonl")
ABOUT = ".about"
"""Behind the file's name, for what it is told with: JSON, under a name that no folder of shards takes for rows."""
_GROUP_ROWS, _GROUP_CHARS = 256, 64 * 2**20


@dataclass(slots=True, kw_only=True)
class Making:
    """What is made and how, and what became of it."""

    out: Path
    request: Request
    media_root: Path
    split: Split = "train"
    orders: Orders = "one"
    images: Images = "in_row"
    seed: int = 0
    chosen: Chosen | None = None
    num_pairs: int = 0
    num_rows: int = 0
    num_better_first: int = 0
    num_elsewhere: int = 0
    """Instructions of the other split."""
    num_left_out: int = 0
    left_out: Counted = field(default_factory=lambda: Counted("pairs left out"))

    def lines(self) -> Iterator[str]:
        """What was made, for people."""
        yield f"rows    {self.num_rows} of {self.num_pairs} pairs, {self.num_better_first} show the better one first"
        yield f"prompt  {self.request}"
        yield from self.reasons()

    def reasons(self) -> Iterator[str]:
        """What was not made, for people."""
        if self.chosen is not None:
            yield from self.chosen.lines()
        yield from self.left_out.lines(self.left_out.total + self.num_pairs + self.num_unlearned)
        if self.num_elsewhere:
            yield f"other   {self.num_elsewhere} instructions are of another split"

    @property
    def num_unlearned(self) -> int:
        """Pairs that attempts leave out."""
        return 0 if self.chosen is None else self.chosen.num_dropped + self.chosen.num_untried


def make_judgements(instructions: Iterable[Instruction], making: Making) -> None:
    """Write a row for each pair of the split, or one for each of its orders, and ``out.about``.

    Raises:
        RefusedInput: ``out`` exists, cannot be written or is of no kind that is; nothing is left to be written; or
            pictures changed since they were read. No file is left.
    """
    refuse_taken(making.out)
    try:
        with TemporaryFile("w+", encoding="utf-8", dir=making.out.parent) as spooled:
            most_images = 0
            for instruction in instructions:
                for pair, files in _pairs(instruction, making):
                    most_images = max(most_images, len(files))
                    spooled.write(json.dumps([asdict(pair), files]) + "\n")
            _refuse_nothing(making)
            spooled.seek(0)
            _write(spooled, making, lists=most_images > 1)
    except OSError as error:
        raise RefusedInput(f"output file {str(making.out)!r} cannot be written ({error.strerror})") from error


def _refuse_nothing(making: Making) -> None:
    if making.num_pairs:
        return
    why = ["", *(" ".join(line.split()) for line in making.reasons())]
    raise RefusedInput(f"no pair of split {making.split!r} is left for {str(making.out)!r}" + "; ".join(why))


def _write(spooled: IO[str], making: Making, *, lists: bool) -> None:
    partial = making.out.with_name(f".{making.out.name}.partial")
    try:
        with _writer(partial, making, lists=lists) as writer:
            for row in _rows(spooled, making):
                writer.add(row)
        flush(partial)
        write_atomic(making.out.with_name(making.out.name + ABOUT), _about(making))
        partial.replace(making.out)
    finally:
        partial.unlink(missing_ok=True)


def refuse_taken(out: Path) -> None:
    """Stop where no file can be made, before anything long is read.

    Raises:
        RefusedInput: see ``make_judgements``.
    """
    if out.suffix not in SUFFIXES:
        raise RefusedInput(f"output file {str(out)!r}: expected a name that ends with {' or '.join(SUFFIXES)}")
    if out.exists():
        raise RefusedInput(f"output file {str(out)!r} already exists")
    if not out.parent.is_dir():
        raise RefusedInput(f"output file {str(out)!r} cannot be made: {str(out.parent)!r} is not a folder")


def _pairs(instruction: Instruction, making: Making) -> Iterator[tuple[JudgedPair, list[tuple[str, str]]]]:
    """Pairs that are written, with the digest and the file of each of their images."""
    if instruction.split != making.split:
        making.num_elsewhere += 1
        return
    files = [(media.sha256, str(making.media_root.resolve() / media.path)) for media in instruction.media]
    names = [path if making.images == "path" else sha256 + Path(path).suffix for sha256, path in files]
    pairs, reasons = judged_pairs(instruction, names=names, request=making.request)
    if gone := [path for _, path in files if not Path(path).is_file()]:
        reasons += [f"its image {gone[0]!r} is gone"] * len(pairs)
        pairs = []
    for reason in reasons:
        making.left_out.add(BadRow(uid_parts(instruction.uid)[1], reason))
    for pair in pairs:
        if making.chosen is None or making.chosen.keeps(pair.uid):
            making.num_pairs += 1
            yield pair, files


def _rows(spooled: IO[str], making: Making) -> Iterator[dict[str, Any]]:
    """Every row with its pictures, in the order of the instructions."""
    places = permutation(making.num_pairs, stream_key("judgements", making.seed))
    for line, place in zip(spooled, places, strict=True):
        fields, files = json.loads(line)
        pair = JudgedPair(**{**fields, "images": tuple(fields["images"])})
        drawn: Label = LABELS[int(place) % 2]
        for label in LABELS if making.orders == "both" else (drawn,):
            row = judgement_row(pair, label, making.request)
            row["image"] = [_picture(sha256, path, making.images) for sha256, path in files]
            row |= {} if making.chosen is None else making.chosen.columns(pair.uid)
            making.num_rows += 1
            making.num_better_first += label == "1"
            yield row


def _picture(sha256: str, path: str, images: Images) -> str:
    if images == "path":
        return path
    try:
        data = read_bytes(path, most=PICTURE)
    except UnusableFile as error:
        raise RefusedInput(f"image {path!r} {error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RefusedInput(f"image {path!r} is not the one that the store was made with")
    return base64.b64encode(data).decode()


def _about(making: Making) -> str:
    chosen, request = making.chosen, making.request
    told: dict[str, Any] = {
        "evaluator_prompt": {
            "name": request.name, "version": request.version, "sha256": request.sha256, "text": request.text
        },
        "rows": making.num_rows,
        "pairs": making.num_pairs,
        "better_first": making.num_better_first,
        "split": making.split,
        "orders": making.orders,
        "images": making.images,
        "seed": making.seed,
        "left_out": making.left_out.to_json(making.left_out.total + making.num_pairs + making.num_unlearned),
    }  # fmt: skip
    if chosen is not None:
        told["attempts"] = {
            "file": Path(chosen.attempts.name).name,
            "right": chosen.right,
            "kept": chosen.num_kept,
            "dropped": chosen.num_dropped,
            "without": chosen.num_untried,
        }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


class _Writer(Protocol):
    def add(self, row: dict[str, Any]) -> None: ...


@contextmanager
def _writer(path: Path, making: Making, *, lists: bool) -> Iterator[_Writer]:
    path.unlink(missing_ok=True)  # a crash left it, or somebody planted a link: never written through
    if making.out.suffix == ".jsonl":
        with path.open("x", encoding="utf-8") as file:
            yield _Lines(file)
        return
    text, number = pa.string(), pa.int32()
    columns = {"question": text, "message": text, "answer": pa.list_(text), "image": pa.list_(text) if lists else text}
    columns |= {"id": text, "evaluator_prompt": text}
    columns |= {} if making.chosen is None else {"right": number, "tried": number, "difficulty": number}
    schema = pa.schema(list(columns.items()))
    with path.open("xb") as sink, pq.ParquetWriter(sink, schema) as file:
        table = _Table(file, schema, lists=lists)
        yield table
        table.finish()


@dataclass(frozen=True, slots=True)
class _Lines:
    file: IO[str]

    def add(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row | {"image": _cell(row["image"], lists=False)}, ensure_ascii=False) + "\n")


@dataclass(slots=True)
class _Table:
    """Row groups that are bounded in bytes."""

    file: pq.ParquetWriter
    schema: pa.Schema
    lists: bool
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _chars: int = 0

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row | {"image": _cell(row["image"], lists=self.lists)})
        self._chars += len(row["message"]) + sum(map(len, row["image"]))
        if len(self._rows) == _GROUP_ROWS or self._chars > _GROUP_CHARS:
            self.finish()

    def finish(self) -> None:
        """Write what waits."""
        if self._rows:
            self.file.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
        self._rows, self._chars = [], 0


def _cell(images: list[str], *, lists: bool) -> Any:
    """The pictures of a row as its column has them: a table has one type for all its rows."""
    if not images:
        return None
    return images if lists or len(images) > 1 else images[0]
