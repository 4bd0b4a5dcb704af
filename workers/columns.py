"""Records on their way between driver and ranks: the arrays of many as one, and each prompt once.

Pickled one by one, the records of a step of 32,768 completions of 1,000 tokens take seconds.

    records of a rank ──► Microbatches ──► object store ──► the same records, whose arrays are views
    rows of values    ──► Slots        ──► object store ──► the same rows, likewise
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from itertools import accumulate, chain, pairwise
from typing import Any, NamedTuple, overload

import numpy as np

from algorithms.records import Sequence as TokenSequence

_NO_VALUES = np.empty(0, np.float32)


class Microbatches(Sequence[list[Any]]):
    """What a worker is asked about, micro-batch by micro-batch: records of any one class, or anything else."""

    def __init__(self, batches: Iterable[Iterable[Any]]) -> None:
        self._batches = [list(batch) for batch in batches]

    def __reduce__(self) -> tuple[Any, ...]:
        return _microbatches, ([len(b) for b in self._batches], _packed(list(chain.from_iterable(self._batches))))

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> list[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Any]]: ...
    def __getitem__(self, index: int | slice) -> list[Any] | list[list[Any]]:
        return self._batches[index]


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
def _microbatches(sizes: Sequence[int], packed: Any) -> Microbatches:
    rows = iter(_rows(packed))
    return Microbatches([next(rows) for _ in range(size)] for size in sizes)


def _slots(prompt_lens: Sequence[int], lengths: Sequence[int], said: np.ndarray) -> Slots:
    return Slots(behind_prompts(_views(said, lengths), prompt_lens), prompt_lens)


def behind_prompts(said: Sequence[np.ndarray], prompt_lens: Sequence[int]) -> list[np.ndarray]:
    """Rows ``[T]``, 0 on each prompt and then what is said of its response ``[L]``: float32 views of one array."""
    lengths = [begin + len(row) for begin, row in zip(prompt_lens, said, strict=True)]
    rows = _views(np.zeros(sum(lengths), np.float32), lengths)
    for row, begin, values in zip(rows, prompt_lens, said, strict=True):
        row[begin:] = values
    return rows


class _Arrays(NamedTuple):
    """Many arrays ``[T]`` of one kind, one behind the other."""

    flat: np.ndarray
    lengths: list[int]


class _Sequences(NamedTuple):
    """Sequences whose neighbours may have the same prompt."""

    prompts: _Arrays
    prompt_of: list[int]
    responses: _Arrays
    names: list[tuple[Any, ...]]
    """Uid, sample index and media of each."""


class _Records(NamedTuple):
    """Records of one class, field by field."""

    kind: type[Any]
    columns: dict[str, Any]


def _packed(values: list[Any]) -> Any:
    """The values of a column, or records, in as few pieces as they have."""
    kind = type(values[0]) if values else None
    if kind is None or any(type(value) is not kind for value in values):
        return values
    if kind is np.ndarray:
        first = values[0].dtype
        alike = all(v.ndim == 1 and v.dtype == first for v in values) and not first.hasobject
        return _arrays(values) if alike else values
    if kind is TokenSequence:
        return _sequences(values)
    if is_dataclass(kind) and all(field.init for field in fields(kind)):
        names = [field.name for field in fields(kind)]
        return _Records(kind, {name: _packed([getattr(value, name) for value in values]) for name in names})
    return values


def _rows(packed: Any) -> list[Any]:
    """What ``_packed`` was given."""
    if isinstance(packed, _Arrays):
        return _views(packed.flat, packed.lengths)
    if isinstance(packed, _Sequences):
        return _sequence_rows(packed)
    if isinstance(packed, _Records):
        names, columns = list(packed.columns), [_rows(column) for column in packed.columns.values()]
        return [packed.kind(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
    return packed


def _arrays(rows: list[np.ndarray]) -> _Arrays:
    return _Arrays(np.concatenate(rows), [len(row) for row in rows])


def _sequences(rows: list[TokenSequence]) -> _Sequences:
    prompts, prompt_of, last = list[np.ndarray](), list[int](), None
    for row in rows:
        prompt = row.input_ids[: row.prompt_len]
        spelled = (prompt.dtype, prompt.tobytes())
        if spelled != last:
            prompts.append(prompt)
        prompt_of.append(len(prompts) - 1)
        last = spelled
    return _Sequences(
        prompts=_ids(prompts),
        prompt_of=prompt_of,
        responses=_ids([row.input_ids[row.prompt_len :] for row in rows]),
        names=[(row.uid, row.sample_index, row.media) for row in rows],
    )


def _ids(rows: list[np.ndarray]) -> _Arrays:
    """Half as wide: no vocabulary has 2^31 words."""
    return _Arrays(np.concatenate(rows).astype(np.int32, copy=False), [len(row) for row in rows])


def _sequence_rows(packed: _Sequences) -> list[TokenSequence]:
    prompts = _views(packed.prompts.flat, packed.prompts.lengths)
    responses = _views(packed.responses.flat, packed.responses.lengths)
    return [
        TokenSequence(
            uid=uid,
            sample_index=sample_index,
            input_ids=np.concatenate([prompts[prompt], response], dtype=np.int64),
            prompt_len=len(prompts[prompt]),
            media=media,
        )
        for (uid, sample_index, media), prompt, response in zip(packed.names, packed.prompt_of, responses, strict=True)
    ]


def _views(flat: np.ndarray, lengths: Iterable[int]) -> list[np.ndarray]:
    ends = accumulate(lengths, initial=0)
    return [flat[begin:end] for begin, end in pairwise(ends)]
