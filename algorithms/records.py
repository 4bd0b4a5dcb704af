"""What goes into an algorithm and out of it: plain frozen records of ids and numbers, no tensors, no engine objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRef:
    """One image on disk, identified by its content."""

    sha256: str
    path: str
    """Absolute path, already confined to the media root."""
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDistribution:
    """What a token is drawn from, and whose log-probs it has: softmax(logits / temperature) over all ids but some.

    One record for the engine's, the policy's and the reference's log-probs of a run that learns from what it samples.
    """

    temperature: float = 1.0
    banned_ids: tuple[int, ...] = ()
    """Vision tokens: they stand for media in prompts and must never be sampled."""


PLAIN = SamplingDistribution()
"""The model's own distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """Prompt plus completion as every trainer-side forward takes it. Media are required, possibly empty."""

    uid: str
    sample_index: int
    input_ids: np.ndarray
    """int64 ``[T]``, int32 of what was sampled until it is at its rank: expanded prompt ids, then completion ids."""
    prompt_len: int
    media: tuple[MediaRef, ...]

    @property
    def action_mask(self) -> np.ndarray:
        """bool ``[T]``, True where the policy sampled the token."""
        mask = np.zeros(len(self.input_ids), dtype=bool)
        mask[self.prompt_len :] = True
        return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSample:
    """A sequence whose tokens are learned, slot t speaking of token t."""

    sequence: Sequence
    loss_weight: np.ndarray
    """float64 ``[T]``: this token's share of the global-batch objective; 0 outside ``loss_mask``."""

    @property
    def uid(self) -> str:
        """What to call it when it is at fault."""
        return self.sequence.uid

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        """What the model reads for it."""
        return (self.sequence,)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSample(TokenSample):
    """A sampled one, with everything a policy gradient reads."""

    advantages: np.ndarray
    """float32 ``[T]``."""
    old_logprobs: np.ndarray | None
    """float32 ``[T]``; slot 0 unused. None where the update's own forward gives them: the first since the rollout."""
    rollout_logprobs: np.ndarray
    """float32 ``[T]``; slot 0 unused."""
    ref_logprobs: np.ndarray | None = None
    """float32 ``[T]``; slot 0 unused. None unless the loss has a KL to the reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One sampled sequence with everything known about it before learning."""

    sequence: Sequence
    reward: float | None
    """None where scoring failed."""
    rollout_logprobs: np.ndarray
    """float32 ``[T]``, from the engine."""
    old_logprobs: np.ndarray | None
    """float32 ``[T]``, from the trainer; None where the update will find them itself."""
    ref_logprobs: np.ndarray | None
    """float32 ``[T]``; None without a reference."""
    values: np.ndarray | None = None
    """float32 ``[T]``: what the state before each action token is worth, from the critic; None without one."""
    parts: Mapping[str, float | None] = field(default_factory=dict)
    """What the reward is made of, by name, before any weight; None where a part has no value."""
    part_weights: Mapping[str, float] = field(default_factory=dict)
    """What the parts count in the reward; 1 where a part is not named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeighedPairs:
    """The pairs of an instruction that are learned from, and what became of the others."""

    pairs: tuple[tuple[int, int], ...]
    betas: tuple[float, ...]
    """1/nats, one a pair."""
    margins: tuple[float, ...]
    """Reward of the chosen less that of the rejected, of every pair that has one; empty without a reward model."""
    num_dropped: int
    """Pairs left out: without a reward on either side, without a factor, or with a negative margin that is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The responses of one instruction that an algorithm learns from."""

    uid: str
    sequences: tuple[Sequence, ...]
    """One a response; ``sample_index`` is the response's place in the store."""
    pairs: tuple[tuple[int, int], ...] = ()
    """Chosen and rejected, as indices of ``sequences``."""
    ties: tuple[tuple[int, int], ...] = ()
    """Equally good ones, likewise."""
    desirable: tuple[bool, ...] = ()
    """For each sequence; empty where the algorithm asks for no labels."""
    ref_logprobs: tuple[np.ndarray, ...] | None = None
    """float32 ``[L]`` for each sequence, from a side table; None where none was joined."""
    betas: tuple[float, ...] = ()
    """Of the pairs, 1/nats; empty where all have the same."""
    margins: tuple[float, ...] = ()
    """Of the pairs under a reward model, those that were dropped among them; empty without one."""
    num_dropped: int = 0
    """Pairs that nothing is learned from."""
    critique_starts: tuple[int, ...] = ()
    """For each sequence, where in its ids the critique begins; empty where none is written."""
    fact_starts: tuple[int, ...] = ()
    """For each sequence, where in its ids the words begin that tell the facts; empty where none are told."""
    engine_prompt_ids: tuple[int, ...] = ()
    """The prompt as an engine takes it, where engines are asked about it."""
