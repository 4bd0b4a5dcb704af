"""What an algorithm may ask of the run while it makes samples."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from algorithms.records import Sequence as TokenSequence


class Ask(Protocol):
    """Every answer is in the order of the question."""

    @property
    def step(self) -> int:
        """Steps finished."""
        ...

    @property
    def state(self) -> Mapping[str, float]:
        """``StepSamples.state`` of the step before; empty at the first."""
        ...

    @property
    def seed(self) -> int:
        """Of the run."""
        ...

    @property
    def share_prompts(self) -> bool:
        """Whether sequences of one prompt are read together; else every pair or response is a sample of its own."""
        ...

    @property
    def token_budget(self) -> int:
        """Most tokens of a micro-batch."""
        ...

    @property
    def longest_row(self) -> int:
        """Most tokens of a sequence."""
        ...

    @property
    def longest_response(self) -> int:
        """Most tokens that an engine writes."""
        ...

    @property
    def pad_id(self) -> int:
        """What fills a row up."""
        ...

    def policy(self, sequences: Sequence[TokenSequence]) -> list[np.ndarray]:
        """Log-probs of each sequence's response under the weights that will learn, float32 ``[L]``, nats."""
        ...

    def reference(self, sequences: Sequence[TokenSequence]) -> list[np.ndarray]:
        """The same under the reference."""
        ...

    def reference_of(self, examples: Sequence[Any]) -> list[list[np.ndarray]]:
        """The same for every sequence of each example, from a table where it was computed beforehand."""
        ...

    def rewards(self, sequences: Sequence[TokenSequence]) -> list[float]:
        """The scalar head's reward of each sequence."""
        ...

    def greedy_hits(self, sequences: Sequence[TokenSequence]) -> list[int]:
        """How many of each response's tokens are the likeliest."""
        ...

    def critiques(self, examples: Sequence[Any]) -> list[list[TokenSequence | None]] | None:
        """Critiques that the model writes itself, behind each sequence's prompt; None on a step that has none."""
        ...

    def deal(self, uids: Sequence[str], *, epoch: int = 0) -> list[list[int]]:
        """Samples, by their prompts, dealt out to the optimizer steps of this step; as indices.

        Args:
            epoch: Times that they have been gone through; each is dealt otherwise.
        """
        ...

    def draw(self, name: str) -> int:
        """A seed of 63 bits for something random of this step, the same whenever it is taken again."""
        ...

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Time what is done inside as ``time/<name>_s``, and show it."""
        ...
