"""Records on their way between driver and workers: the arrays of many in one buffer, and each prompt once.

Pickled one by one, the records of a step of 32,768 completions of 1,000 tokens take seconds. What a message is made of
besides its buffer is tuples, lists, dicts, texts and numbers: Ray looks at every other object for itself.

    records of a rank ──► Microbatches ──► object store ──► the same records, whose arrays are views
    records           ──► Rows         ──► object store ──► the same records, likewise
    rows of values    ──► Slots        ──► object store ──► the same rows, likewise
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from typing import Any, Generic, TypeVar, overload

import numpy as np

from algorithms.records import MediaRef
from algorithms.records import Sequence as TokenSequence

_T = TypeVar("_T")
_DTYPE_AND_NDIM = attrgetter("dtype", "ndim")
_OF_SEQUENCE = attrgetter("uid", "sample_index")
_OF_MEDIA = attrgetter("sha256", "path", "width", "height")
_PLAIN_KINDS = "biuf"
_ALIGNED = 8
_NO_VALUES = np.empty(0, np.float32)


class Microbatches(Sequence[list[Any]]):
    """What a worker is asked about, micro-batch by micro-batch: records of any one class, or anything else."""

    def __init__(self, batches: Iterable[Iterable[Any]]) -> None:
        self._batches = [list(batch) for batch in batches]

    def __reduce__(self) -> tuple[Any, ...]:
        return _microbatches, ([len(b) for b in self._batches], *_message(list(chain.from_iterable(self._batches))))

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> list[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Any]]: ...
    def __getitem__(self, index: int | slice) -> list[Any] | list[list[Any]]:
        return self._batches[index]


class Rows(Sequence[_T], Generic[_T]):
    """Records of any one class, or anything else."""

    def __init__(self, rows: Iterable[_T]) -> None:
        self._rows = list(rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return _whole, _message(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> list[_T]: ...
    def __getitem__(self, index: int | slice) -> _T | list[_T]:
        return self._rows[index]


class Slots(Sequence[np.ndarray]):
    """A value for every token that was sampled: a row ``[T]`` a sequence, 0 on its prompt, which does not travel."""

    def __init__(self, rows: Sequence[np.ndarray], prompt_lens: Sequence[int]) -> None:
        self._rows, self._prompt_lens = rows, prompt_lens

    def __reduce__(self) -> tuple[Any, ...]:
        said = [row[begin:] for row, begin in zip(self._rows, self._prompt_lens, strict=True)]
        return _slots, (tuple(self._prompt_lens), tuple(map(len, said)), np.concatenate([_NO_VALUES, *said]))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        return self._rows[index]


# By name in the module: methods of a class would be pickled with their code.
def _microbatches(sizes: Sequence[int], packed: Any, buffer: np.ndarray) -> Microbatches:
    rows = iter(_unpacked(packed, buffer))
    return Microbatches([next(rows) for _ in range(size)] for size in sizes)


def _whole(packed: Any, buffer: np.ndarray) -> Rows[Any]:
    return Rows(_unpacked(packed, buffer))


def _slots(prompt_lens: Sequence[int], lengths: Sequence[int], said: np.ndarray) -> Slots:
    return Slots(behind_prompts(_views(said, lengths), prompt_lens), prompt_lens)


def behind_prompts(said: Sequence[np.ndarray], prompt_lens: Sequence[int]) -> list[np.ndarray]:
    """Rows ``[T]``, 0 on each prompt and then what is said of its response ``[L]``: float32 views of one array."""
    lengths = [begin + len(row) for begin, row in zip(prompt_lens, said, strict=True)]
    rows = _views(np.zeros(sum(lengths), np.float32), lengths)
    for row, begin, values in zip(rows, prompt_lens, said, strict=True):
        row[begin:] = values
    return rows


class _Buffer:
    """Where the arrays of a message go, one behind the other."""

    def __init__(self) -> None:
        self._columns: list[tuple[int, np.dtype[Any], list[np.ndarray]]] = []
        self._size = 0

    def add(self, rows: list[np.ndarray], dtype: np.dtype[Any]) -> tuple[str, int, list[int]]:
        """Arrays ``[T]`` of one kind: how they are to be read, where they begin, and how long each is."""
        lengths, begin = [len(row) for row in rows], self._size
        self._columns.append((begin, dtype, rows))
        self._size += -(-sum(lengths) * dtype.itemsize // _ALIGNED) * _ALIGNED
        return dtype.str, begin, lengths

    def filled(self) -> np.ndarray:
        """All of it, uint8."""
        whole = np.empty(self._size, np.uint8)
        for begin, dtype, rows in self._columns:
            size = sum(map(len, rows)) * dtype.itemsize
            # Ids may become half as wide: no vocabulary has 2^31 words.
            np.concatenate(rows, out=whole[begin : begin + size].view(dtype), casting="unsafe")
        return whole


def _message(values: list[Any]) -> tuple[Any, np.ndarray]:
    buffer = _Buffer()
    return _packed(values, buffer), buffer.filled()


def _packed(values: list[Any], buffer: _Buffer) -> tuple[Any, ...]:
    """The values of a column, or records, in as few pieces as they have; the first says what they are."""
    kinds = set(map(type, values))
    if len(kinds) != 1:
        return "values", values
    (kind,) = kinds
    if kind is np.ndarray:
        first = values[0].dtype
        alike = set(map(_DTYPE_AND_NDIM, values)) == {(first, 1)} and first.kind in _PLAIN_KINDS
        return ("arrays", buffer.add(values, first)) if alike else ("values", values)
    if kind is TokenSequence:
        return "sequences", *_sequences(values, buffer)
    names = _names(kind)
    if not names:
        return "values", values
    return "records", kind, {name: _packed([getattr(v, name) for v in values], buffer) for name in names}


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    """Fields of a record that is made by naming all of them; none of anything else."""
    found = fields(kind) if is_dataclass(kind) else ()
    return tuple(field.name for field in found) if all(field.init for field in found) else ()


def _unpacked(packed: tuple[Any, ...], buffer: np.ndarray) -> list[Any]:
    """What ``_packed`` was given."""
    match packed:
        case "arrays", column:
            return _column(column, buffer)
        case "sequences", prompts, prompt_of, responses, names, media, media_of:
            return _sequence_rows(prompts, prompt_of, responses, names, media, media_of, buffer)
        case "records", kind, columns:
            rows = zip(*(_unpacked(column, buffer) for column in columns.values()), strict=True)
            return [kind(**dict(zip(columns, row, strict=True))) for row in rows]
    return packed[1]


def _column(told: tuple[str, int, list[int]], buffer: np.ndarray) -> list[np.ndarray]:
    kind, begin, lengths = told
    dtype = np.dtype(kind)
    return _views(buffer[begin : begin + sum(lengths) * dtype.itemsize].view(dtype), lengths)


def _sequences(rows: list[TokenSequence], buffer: _Buffer) -> tuple[Any, ...]:
    """Sequences whose neighbours may have the same prompt, and the same media."""
    prompts, prompt_of, last = list[np.ndarray](), list[int](), None
    for row in rows:
        prompt = row.input_ids[: row.prompt_len]
        spelled = (prompt.dtype, prompt.tobytes())
        if spelled != last:
            prompts.append(prompt)
        prompt_of.append(len(prompts) - 1)
        last = spelled
    media = {id(row.media): row.media for row in rows}  # one tuple for all samples of a prompt
    places = {key: place for place, key in enumerate(media)}
    ids = np.dtype(np.int32)
    return (
        buffer.add(prompts, ids),
        prompt_of,
        buffer.add([row.input_ids[row.prompt_len :] for row in rows], ids),
        list(map(_OF_SEQUENCE, rows)),
        [list(map(_OF_MEDIA, refs)) for refs in media.values()],
        [places[id(row.media)] for row in rows],
    )


def _sequence_rows(
    prompts: Any,
    prompt_of: list[int],
    responses: Any,
    names: list[tuple[str, int]],
    media: list[list[tuple[str, str, int, int]]],
    media_of: list[int],
    buffer: np.ndarray,
) -> list[TokenSequence]:
    before, refs = _column(prompts, buffer), [tuple(map(_media_ref, some)) for some in media]
    return [
        TokenSequence(
            uid=uid,
            sample_index=sample_index,
            input_ids=np.concatenate([before[prompt], response], dtype=np.int64),
            prompt_len=len(before[prompt]),
            media=refs[shown],
        )
        for (uid, sample_index), prompt, response, shown in zip(
            names, prompt_of, _column(responses, buffer), media_of, strict=True
        )
    ]


def _media_ref(told: tuple[str, str, int, int]) -> MediaRef:
    sha256, path, width, height = told
    return MediaRef(sha256=sha256, path=path, width=width, height=height)


def _views(flat: np.ndarray, lengths: Iterable[int]) -> list[np.ndarray]:
    ends = accumulate(lengths, initial=0)
    return [flat[begin:end] for begin, end in pairwise(ends)]
