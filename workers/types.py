"""What crosses process boundaries: plain frozen records, no tensors, no engine objects.

Two token lists describe one prompt and are never interchangeable:

    engine_prompt_ids   one placeholder token per image, as an engine's own processor expects it
    prompt_ids          placeholders expanded to one token per vision feature, as a model's forward sees it

Media are named by the SHA-256 of their bytes and travel as references; bytes are read where they are used.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

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
