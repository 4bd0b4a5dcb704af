"""Sequences laid out without padding: each prompt once, its responses behind it, all in one row.

    [prompt a][a's y_1]..[a's y_K][prompt b][b's y_1]..        T tokens

For attention, which is the one place where tokens meet, ``Segments`` says where in the row each piece stands.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from torch import Tensor

from algorithms.records import Sequence


@dataclass(frozen=True, slots=True)
class Stretches:
    """Stretches of tokens that follow each other, as attention kernels are told of them."""

    bounds: tuple[int, ...]
    """0, and where each of the ``S`` stretches ends."""
    on_device: Tensor
    """The same, int32 ``[S + 1]``."""

    @classmethod
    def of(cls, lengths: Seq[int]) -> Self:
        """Stretches of these lengths, of which none is 0."""
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return cls(tuple(ends.tolist()), torch.from_numpy(ends))

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return max((end - start for start, end in pairwise(self.bounds)), default=0)

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return replace(self, on_device=self.on_device.to(device))

    def slices(self) -> list[slice]:
        """One for each stretch."""
        return [slice(start, end) for start, end in pairwise(self.bounds)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Where prompts and responses stand in a row of ``T`` tokens. Prompts that nobody responds to are in it, too."""

    prompts: Tensor
    """int64 ``[G, P]``: positions in the row of each prompt's tokens, filled up to the longest with its last."""
    real: Tensor
    """bool ``[G, P]``, False on filling."""
    group: Tensor
    """int64 ``[T]``: the prompt that a token belongs to."""
    piece: Tensor
    """int64 ``[T]``: the prompt or response, counted from the row's start, that a token belongs to."""
    offset: Tensor
    """int64 ``[T]``: the place of a token in its prompt or response."""
    pieces: Stretches
    """The whole row: prompts and responses as they come."""
    responses: Tensor
    """int64 ``[R]``: positions of all tokens of responses."""
    prompted: Stretches
    """Of ``responses``: those of one prompt end to end."""
    answered: Tensor
    """int64 ``[A]``: positions of the tokens of prompts with at least one such token."""
    prompting: Stretches
    """Of ``answered``: one prompt each, in the order of ``prompted``."""

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


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
    lengths: list[list[int]] = []
    predictors = [np.empty(0, np.int64)] * len(sequences)
    ends = [0] * len(sequences)
    end = 0
    for members in groups.values():
        prompt_len = sequences[members[0]].prompt_len
        pieces.append(sequences[members[0]].input_ids[:prompt_len])
        lengths.append([prompt_len])
        end += prompt_len
        last_of_prompt = end - 1
        for member in members:
            own = sequences[member].input_ids[prompt_len:]
            pieces.append(own)
            lengths[-1].append(len(own))
            predictors[member] = np.concatenate([[last_of_prompt], np.arange(end, end + len(own) - 1)])[: len(own)]
            end += len(own)
            ends[member] = end - 1 if len(own) else last_of_prompt
    return Packed(
        input_ids=np.concatenate(pieces),
        segments=segments_of(lengths),
        owners=tuple(members[0] for members in groups.values()),
        predictors=tuple(predictors),
        ends=tuple(ends),
    )


def segments_of(lengths: Seq[Seq[int]]) -> Segments:
    """Where everything stands.

    Args:
        lengths: For each prompt its own length, at least 1, and those of its responses.
    """
    flat = np.array([n for of_prompt in lengths for n in of_prompt])
    is_prompt = np.concatenate([np.arange(len(of_prompt)) == 0 for of_prompt in lengths])
    starts = np.cumsum(flat) - flat
    piece, offset = np.repeat(np.arange(len(flat)), flat), np.arange(flat.sum()) - np.repeat(starts, flat)
    group = (np.cumsum(is_prompt) - 1)[piece]
    responded = np.array([sum(of_prompt[1:]) for of_prompt in lengths])
    prompt_lens, of_prompts = flat[is_prompt], is_prompt[piece]
    index = np.arange(prompt_lens.max())
    return Segments(
        prompts=torch.from_numpy(starts[is_prompt][:, None] + np.minimum(index, prompt_lens[:, None] - 1)),
        real=torch.from_numpy(index < prompt_lens[:, None]),
        group=torch.from_numpy(group),
        piece=torch.from_numpy(piece),
        offset=torch.from_numpy(offset),
        pieces=Stretches.of(flat[flat > 0].tolist()),
        responses=torch.from_numpy(np.flatnonzero(~of_prompts)),
        prompted=Stretches.of(responded[responded > 0].tolist()),
        answered=torch.from_numpy(np.flatnonzero(of_prompts & (responded > 0)[group])),
        prompting=Stretches.of(prompt_lens[responded > 0].tolist()),
    )
