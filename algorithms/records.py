"""What goes into an algorithm and out of it: plain frozen records of ids and numbers, no tensors, no engine objects."""

from dataclasses import dataclass

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
    """int64 ``[T]``: expanded prompt ids, then completion ids."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTerms:
    """Scores compared two by two."""

    pairs: np.ndarray
    """int64 ``[P, 2]``: chosen and rejected, as indices of scores."""
    weights: np.ndarray
    """float64 ``[P]``: each pair's share of the global batch's objective."""
    betas: np.ndarray
    """float64 ``[P]``, 1/nats; not read for scalar rewards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTerms:
    """Every score desired or not, by itself (KTO)."""

    desirable: np.ndarray
    """bool ``[S]``."""
    weights: np.ndarray
    """float64 ``[S]``: each score's share of the global batch's objective, times the weight of its kind."""
    beta: float
    """1/nats."""
    baseline: float
    """z₀ of the global batch, nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearTerms:
    """A loss that couples the whole batch, by its derivatives: the driver has scored it under the same weights."""

    coefficients: np.ndarray
    """float64 ``[S]``: derivative of the global loss by each score."""
    constant: float
    """What makes the sum over all groups equal to the loss where it was differentiated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardTerms:
    """Rewards compared two by two, ties among them, and drawn to zero (the critique reward model)."""

    pairs: np.ndarray
    """int64 ``[P, 2]``: chosen and rejected, as indices of scores; of a tie, either."""
    is_tie: np.ndarray
    """bool ``[P]``."""
    weights: np.ndarray
    """float64 ``[P]``: each comparison's share of the global batch."""
    preference_weight: float
    tie_weight: float
    centre_weight: float
    """These three as ``critique_pair_loss`` takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceGroup:
    """Responses to one prompt and what is made of their scores; they learn in one forward."""

    sequences: tuple[Sequence, ...]
    score_of: np.ndarray
    """int64 ``[S]``: the sequence each score is of. One each, unless the weights of its tokens depend on the pair."""
    score_weights: tuple[np.ndarray, ...]
    """float32 ``[T]`` for each score, 0 on the prompt: a score is the sum of its sequence's token log-probs times
    these. Empty where the model itself gives each sequence a scalar."""
    ref_scores: np.ndarray
    """float64 ``[S]``: the same sums under the reference; zeros where there is none."""
    terms: PairTerms | LabelTerms | LinearTerms | RewardTerms
    imitation: tuple[np.ndarray, ...] = ()
    """float64 ``[T]`` for each sequence: each token's share of the cross-entropy in the global batch's objective, 0 on
    the prompt. Empty where nothing is imitated."""

    @property
    def uid(self) -> str:
        """What to call it when it is at fault."""
        return self.sequences[0].uid


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
    engine_prompt_ids: tuple[int, ...] = ()
    """The prompt as an engine takes it, where engines are asked about it."""
