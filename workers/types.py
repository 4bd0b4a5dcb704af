"""What crosses process boundaries: plain frozen records, no tensors, no engine objects.

Two token lists describe one prompt and are never interchangeable:

    engine_prompt_ids   one placeholder token per image, as an engine's own processor expects it
    prompt_ids          placeholders expanded to one token per vision feature, as a model's forward sees it

Media are named by the SHA-256 of their bytes and travel as references; bytes are read where they are used.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, overload

import numpy as np

from algorithms.figures import Tallies
from algorithms.records import MediaRef

FinishReason = Literal["stop", "length", "abort"]


class UnusablePrompt(ValueError):
    """Why a model cannot be asked a prompt, naming the row it is from: in one sentence."""

    def __init__(self, uid: str, reason: str) -> None:
        super().__init__(uid, reason)  # both, so that it survives the way between processes
        self.reason = reason

    def __str__(self) -> str:
        return f"row {self.args[0]}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One dataset row as the loop uses it; immutable and tokenizer-independent."""

    uid: str
    """Stable across runs and resumes, e.g. ``train-000012``."""
    messages: tuple[dict[str, Any], ...]
    """Chat turns ``{"role", "content": [{"type": "text", "text"} | {"type": "image"}]}``; images in ``media`` order."""
    media: tuple[MediaRef, ...]
    label: str | None = None
    """The preferred response of a pairwise judgement, ``"1"`` or ``"2"``; None where the row has none."""
    target: str | None = None
    """A demonstration response, present only in data meant for ``sft``."""
    meta: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    """Name of the data source that it is from; empty where a run has but one."""
    row: dict[str, Any] = field(default_factory=dict)
    """The row as its file has it, without pictures that stand in it: what a reward function may ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """A prompt in token ids, in both spellings."""

    uid: str
    engine_prompt_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    media: tuple[MediaRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One sample to draw. ``(uid, sample_index)`` names it for its whole life."""

    uid: str
    sample_index: int
    engine_prompt_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    media: tuple[MediaRef, ...]
    seed: int
    max_new_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float = 1.0
    """Below 1 for samples that nobody learns from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine sampled for one request."""

    uid: str
    sample_index: int
    completion_ids: np.ndarray
    """int32 ``[L]``; includes the end-of-turn token when ``finish_reason`` is ``stop``."""
    rollout_logprobs: np.ndarray
    """float32 ``[L]``, nats, of the distribution that was sampled from: tempered (greedy ones at temperature 1), and
    without the banned ids."""
    finish_reason: FinishReason
    policy_version: int
    """Optimizer steps behind the weights that sampled it."""
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completions(Sequence[Completion]):
    """Many completions as columns: they cross between processes without a copy, and a row is a view of them.

    Before each there may be its prompt, so that what a trainer reads is a view too; see ``behind``.
    """

    uids: tuple[str, ...]
    sample_indices: tuple[int, ...]
    begins: np.ndarray
    """int64 ``[B]``: where each begins in the two columns of tokens."""
    ends: np.ndarray
    """int64 ``[B]``: and where it ends."""
    completion_ids: np.ndarray
    """int32 ``[N]``, one behind the other, prompts between them where there are any; see ``Completion``."""
    rollout_logprobs: np.ndarray
    """float32 ``[N]``; 0 on prompts."""
    finish_reasons: tuple[FinishReason, ...]
    policy_versions: tuple[int, ...]
    engines: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Completion]) -> Self:
        """Columns of rows, in their order."""
        rows = list(rows)
        lengths = np.array([len(row.completion_ids) for row in rows], np.int64)
        ends = lengths.cumsum()
        return cls(
            uids=tuple(row.uid for row in rows),
            sample_indices=tuple(row.sample_index for row in rows),
            begins=ends - lengths,
            ends=ends,
            completion_ids=np.concatenate([np.empty(0, np.int32), *(row.completion_ids for row in rows)]),
            rollout_logprobs=np.concatenate([np.empty(0, np.float32), *(row.rollout_logprobs for row in rows)]),
            finish_reasons=tuple(row.finish_reason for row in rows),
            policy_versions=tuple(row.policy_version for row in rows),
            engines=tuple(row.engine for row in rows),
        )

    @property
    def keys(self) -> list[tuple[str, int]]:
        """Uid and sample index of each."""
        return list(zip(self.uids, self.sample_indices, strict=True))

    @property
    def lengths(self) -> np.ndarray:
        """int64 ``[B]``, tokens of each."""
        return self.ends - self.begins

    def ids(self) -> list[np.ndarray]:
        """The token ids of each, int32 ``[L]``: views."""
        return _views(self.completion_ids, self.begins, self.ends)

    def logprobs(self) -> list[np.ndarray]:
        """What the engine said of each token, float32 ``[L]``: views."""
        return _views(self.rollout_logprobs, self.begins, self.ends)

    @property
    def prompt_lens(self) -> list[int]:
        """Tokens of the prompt before each; 0 where none was laid there."""
        return (self.begins - self._starts).tolist()

    def with_prompts(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Ids and log-probs of each and of the prompt before it, ``[T]``: views."""
        starts = self._starts
        return _views(self.completion_ids, starts, self.ends), _views(self.rollout_logprobs, starts, self.ends)

    def behind(self, prompts: Sequence[np.ndarray]) -> "Completions":
        """The same, each behind its prompt, int32 ``[P]``."""
        return _laid([self], [(0, row) for row in range(len(self))], prompts)

    @property
    def _starts(self) -> np.ndarray:
        return np.concatenate([np.zeros(1, np.int64), self.ends])[: len(self)]

    def __len__(self) -> int:
        return len(self.uids)

    def __iter__(self) -> Iterator[Completion]:
        columns = (self.uids, self.sample_indices, self.ids(), self.logprobs())
        columns += (self.finish_reasons, self.policy_versions, self.engines)
        for uid, index, ids, logprobs, reason, version, engine in zip(*columns, strict=True):
            yield Completion(
                uid=uid,
                sample_index=index,
                completion_ids=ids,
                rollout_logprobs=logprobs,
                finish_reason=reason,
                policy_version=version,
                engine=engine,
            )

    @overload
    def __getitem__(self, index: int) -> Completion: ...
    @overload
    def __getitem__(self, index: slice) -> list[Completion]: ...
    def __getitem__(self, index: int | slice) -> Completion | list[Completion]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        begin, end = int(self.begins[index]), int(self.ends[index])  # an index out of range ends an iteration
        return Completion(
            uid=self.uids[index],
            sample_index=self.sample_indices[index],
            completion_ids=self.completion_ids[begin:end],
            rollout_logprobs=self.rollout_logprobs[begin:end],
            finish_reason=self.finish_reasons[index],
            policy_version=self.policy_versions[index],
            engine=self.engines[index],
        )


def joined(
    parts: Sequence[Completions], order: Iterable[tuple[str, int]], prompts: Sequence[np.ndarray] | None = None
) -> Completions:
    """The completions of ``parts`` that are named by ``order``, in its order, in one record.

    Args:
        order: Uid and sample index of each; the last part that has one counts.
        prompts: Laid before each, int32 ``[P]``; None lays nothing there.
    """
    found: Mapping[tuple[str, int], tuple[int, int]] = {
        key: (number, row) for number, part in enumerate(parts) for row, key in enumerate(part.keys)
    }
    return _laid(parts, [found[key] for key in order], prompts)


def _laid(
    parts: Sequence[Completions], at: Sequence[tuple[int, int]], prompts: Sequence[np.ndarray] | None
) -> Completions:
    """Rows by part and place in it, one behind the other, or each behind its prompt."""
    ids, logprobs = [part.ids() for part in parts], [part.logprobs() for part in parts]
    tokens, said = [ids[part][row] for part, row in at], [logprobs[part][row] for part, row in at]
    lengths = np.array([len(row) for row in tokens], np.int64)
    ends = lengths.cumsum()
    if prompts is not None:
        before = [len(prompt) for prompt in prompts]
        ends += np.array(before, np.int64).cumsum()
        blank = np.zeros(max(before, default=0), np.float32)
        tokens = [piece for both in zip(prompts, tokens, strict=True) for piece in both]
        said = [piece for size, row in zip(before, said, strict=True) for piece in (blank[:size], row)]
    return Completions(
        uids=tuple(parts[part].uids[row] for part, row in at),
        sample_indices=tuple(parts[part].sample_indices[row] for part, row in at),
        begins=ends - lengths,
        ends=ends,
        completion_ids=np.concatenate([np.empty(0, np.int32), *tokens]),
        rollout_logprobs=np.concatenate([np.empty(0, np.float32), *said]),
        finish_reasons=tuple(parts[part].finish_reasons[row] for part, row in at),
        policy_versions=tuple(parts[part].policy_versions[row] for part, row in at),
        engines=tuple(parts[part].engines[row] for part, row in at),
    )


def _views(column: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    return [column[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankUpdate:
    """What one rank met in one optimizer step."""

    figures: Tallies = field(default_factory=dict)
    """Its shares of the figures."""
    grad_norm: float = math.nan
    """Of all ranks together, before clipping; NaN where no step was taken."""
    lr: float = 0.0
    nonfinite: tuple[str, ...] = ()
    """Samples whose loss was not finite, or the whole micro-batch whose gradient was not, or all where only their sum
    was not; then no rank has stepped."""
