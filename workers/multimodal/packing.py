"""Sequences laid out without padding: each prompt once, its responses behind it, all in one row.

    [prompt a][a's y_1]..[a's y_K][prompt b][b's y_1]..        T tokens

For attention, which is the one place where tokens meet, prompts and responses are batches of their own: ``Segments``
says where in the row each stands, with responses of similar length together.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from algorithms.records import Sequence

_SHORTEST_CLASS = 16
"""Tokens; responses up to this length form one class, up to twice as much the next, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Stretches of the row as one batch, filled up to the longest with any position."""

    positions: Tensor
    """int64 ``[S, L]``, in the row."""
    real: Tensor
    """bool ``[S, L]``, False on filling."""
    prompt_of: Tensor
    """int64 ``[S]``: the prompt each belongs to."""

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("positions", "real", "prompt_of")}
        return replace(self, **moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Where prompts and responses stand in a row of ``T`` tokens."""

    prompts: Spans
    responses: tuple[Spans, ...]
    """By length: a long one would make all others pay for it."""
    found_at: Tensor
    """int64 ``[T]``: each token's place in the flattened ``prompts`` followed by all flattened ``responses``."""

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return replace(
            self,
            prompts=self.prompts.to(device),
            responses=tuple(r.to(device) for r in self.responses),
            found_at=self.found_at.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One row."""

    input_ids: np.ndarray
    """int64 ``[T]``."""
    segments: Segments
    owners: tuple[int, ...]
    """For each prompt a sequence that has it."""
    predictors: tuple[np.ndarray, ...]
    """For each sequence, as given, the positions that predict its response: the prompt's end, then its own."""
    ends: tuple[int, ...]
    """For each sequence, as given, the position of its last token."""


def pack(sequences: Seq[Sequence]) -> Packed:
    """Lay sequences out; those of one uid with equal prompt ids share their prompt."""
    groups: dict[object, list[int]] = {}
    for index, s in enumerate(sequences):
        groups.setdefault((s.uid, s.input_ids[: s.prompt_len].tobytes()), []).append(index)
    pieces: list[np.ndarray] = []
    prompts: list[tuple[int, int, int]] = []
    responses: list[tuple[int, int, int]] = []
    predictors = [np.empty(0, np.int64)] * len(sequences)
    ends = [0] * len(sequences)
    end = 0
    for number, members in enumerate(groups.values()):
        prompt_len = sequences[members[0]].prompt_len
        pieces.append(sequences[members[0]].input_ids[:prompt_len])
        prompts.append((end, prompt_len, number))
        end += prompt_len
        last_of_prompt = end - 1
        for member in members:
            own = sequences[member].input_ids[prompt_len:]
            pieces.append(own)
            responses.append((end, len(own), number))
            predictors[member] = np.concatenate([[last_of_prompt], np.arange(end, end + len(own) - 1)])[: len(own)]
            end += len(own)
            ends[member] = end - 1 if len(own) else last_of_prompt
    return Packed(
        input_ids=np.concatenate(pieces),
        segments=_segments(prompts, responses, num_tokens=end),
        owners=tuple(members[0] for members in groups.values()),
        predictors=tuple(predictors),
        ends=tuple(ends),
    )


def _segments(
    prompts: list[tuple[int, int, int]], responses: list[tuple[int, int, int]], *, num_tokens: int
) -> Segments:
    classes: dict[int, list[tuple[int, int, int]]] = {}
    for span in responses:
        if span[1]:
            classes.setdefault(max(0, (span[1] - 1) // _SHORTEST_CLASS).bit_length(), []).append(span)
    batches = [_spans(prompts), *(_spans(classes[size]) for size in sorted(classes))]
    found_at = torch.zeros(num_tokens, dtype=torch.long)
    real = torch.cat([b.real.flatten() for b in batches])
    found_at[torch.cat([b.positions.flatten() for b in batches])[real]] = real.nonzero().squeeze(1)
    return Segments(prompts=batches[0], responses=tuple(batches[1:]), found_at=found_at)


def _spans(spans: list[tuple[int, int, int]]) -> Spans:
    starts, lengths, owners = (torch.tensor(column) for column in zip(*spans, strict=True))
    index = torch.arange(int(lengths.max()))
    return Spans(
        positions=starts[:, None] + torch.minimum(index, lengths[:, None] - 1),
        real=index < lengths[:, None],
        prompt_of=owners,
    )
