"""What the store holds: an instruction with its media, and the responses to it."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from algorithms.records import MediaRef
from workers.types import Prompt

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMedia:
    """One image of an instruction, named by its content."""

    sha256: str
    path: str
    """Relative to the store's media root."""
    size_bytes: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer to an instruction."""

    text: str
    rank: int | None = None
    """1 is best; equal ranks tie."""
    score: float | None = None
    """Higher is better; None where nobody gave one that can be read."""
    critique: str | None = None
    corrected_spans: tuple[tuple[int, int], ...] | None = None
    """Characters ``[start, end)`` of ``text`` that a person corrected, in order; None where that is not known."""
    provenance: str | None = None
    """Who wrote it, e.g. the name of a model."""
    preferred_to: tuple[int, ...] | None = None
    """Indices of the responses that are worse, where some two of the instruction's were not compared, so that none of
    them has a rank; None where ranks or scores tell."""
    tied_with: tuple[int, ...] | None = None
    """Indices of the others that are as good, likewise."""

    @property
    def is_valued(self) -> bool:
        """Whether anything says how good it is."""
        return self.rank is not None or self.score is not None or self.preferred_to is not None

    def __post_init__(self) -> None:
        if (self.preferred_to is None) != (self.tied_with is None):
            raise ValueError("preferred_to and tied_with are both given or neither")
        if self.preferred_to is not None and self.rank is not None:
            raise ValueError(f"rank = {self.rank}: a response that others are compared with one by one has none")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank = {self.rank}: must be at least 1")
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"score = {self.score}: must be finite")
        end = 0
        for span in self.corrected_spans or ():
            if not end <= span[0] <= span[1] <= len(self.text):
                raise ValueError(
                    f"corrected span {span}: must be in order, without overlap and within {len(self.text)} characters"
                )
            end = span[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One prompt with all responses to it."""

    uid: str
    split: Split
    messages: tuple[dict[str, Any], ...]
    """Chat turns as in ``workers.types.Prompt``; images in ``media`` order."""
    media: tuple[StoredMedia, ...]
    responses: tuple[Response, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    side: dict[str, tuple[np.ndarray, ...]] = field(default_factory=dict)
    """Per side table that was joined, one float32 array for each response; never stored here."""

    def __post_init__(self) -> None:
        images = sum(part["type"] == "image" for turn in self.messages for part in turn["content"])
        if images != len(self.media):
            raise ValueError(f"instruction {self.uid!r} has {images} image parts for {len(self.media)} media")
        named = [i for r in self.responses for i in (*(r.preferred_to or ()), *(r.tied_with or ()))]
        if any(not 0 <= index < len(self.responses) for index in named):
            raise ValueError(f"instruction {self.uid!r} compares responses that it does not have")


def prompt_of(instruction: Instruction, *, media_root: Path) -> Prompt:
    """The instruction as the workers take it, its media under ``media_root``."""
    media = tuple(
        MediaRef(sha256=m.sha256, path=str(media_root / m.path), width=m.width, height=m.height)
        for m in instruction.media
    )
    return Prompt(
        uid=instruction.uid,
        messages=instruction.messages,
        media=media,
        label=instruction.meta.get("label"),
        meta=instruction.meta,
    )
