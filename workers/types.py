"""What crosses process boundaries: plain frozen records, no tensors, no engine objects.

Two token lists describe one prompt and are never interchangeable:

    engine_prompt_ids   one placeholder token per image, as an engine's own processor expects it
    prompt_ids          placeholders expanded to one token per vision feature, as a model's forward sees it

Media are named by the SHA-256 of their bytes and travel as references; bytes are read where they are used.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRef:
    """One image on disk, identified by its content."""

    sha256: str
    path: str
    """Absolute path, already confined to the media root."""
    width: int
    height: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """A prompt in token ids, in both spellings."""

    uid: str
    engine_prompt_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    media: tuple[MediaRef, ...]


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
class TrainSample:
    """A sequence with everything the loss reads, slot t speaking of token t."""

    sequence: Sequence
    loss_weight: np.ndarray
    """float64 ``[T]``: this token's share of the global-batch objective; 0 outside ``loss_mask``."""
    advantages: np.ndarray
    """float32 ``[T]``; zeros for supervised losses."""
    old_logprobs: np.ndarray | None
    """float32 ``[T]``; slot 0 unused. None where the update's own forward gives them: the first since the rollout."""
    rollout_logprobs: np.ndarray
    """float32 ``[T]``; slot 0 unused."""

    @property
    def uid(self) -> str:
        """What to call it when it is at fault."""
        return self.sequence.uid


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
