"""Critique reward workers that answer by rule: a critique of one token, and the reward that a test asks for."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.microbatches import Deal
from workers.types import Completion, FinishReason, GenerationRequest, Prompt


class FakeWorkers:
    """Count what they are asked; they are ``CritiqueWorkers``."""

    def __init__(
        self,
        *,
        reward: Callable[[TokenSequence], float] = lambda sequence: float(sequence.sample_index),
        finish: Callable[[GenerationRequest], FinishReason] = lambda request: "stop",
        end: int = 1,
    ) -> None:
        """
        Args:
            reward: Of a question with its critique.
            finish: Whether the critique of a request is whole.
            end: The token that every critique is.
        """
        self._reward, self._finish, self._end = reward, finish, end
        self.batches: list[list[GenerationRequest]] = []
        self.scored: list[TokenSequence] = []

    @property
    def requests(self) -> list[GenerationRequest]:
        """All so far, in order."""
        return [request for batch in self.batches for request in batch]

    def each(self, method: str, items: Sequence[Any], *, deadline_s: float, deal: Deal | None = None) -> list[Any]:
        """As ``CritiqueWorkers``."""
        return self._write(items) if method == "write" else self._rewards(items)

    def _write(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        self.batches.append(list(requests))
        return [
            Completion(
                uid=request.uid,
                sample_index=request.sample_index,
                completion_ids=np.array([self._end], np.int32),
                rollout_logprobs=np.zeros(1, np.float32),
                finish_reason=self._finish(request),
                policy_version=0,
                engine="fake",
            )
            for request in requests
        ]

    def _rewards(self, sequences: Sequence[TokenSequence]) -> list[float]:
        self.scored += sequences
        return [self._reward(sequence) for sequence in sequences]


def text_prompt(uid: str, words: str = "which digit ?") -> Prompt:
    """A prompt without images."""
    content = [{"type": "text", "text": words}]
    return Prompt(uid=uid, messages=({"role": "user", "content": content},), media=())
