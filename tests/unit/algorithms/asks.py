"""A run that algorithms of preferences can ask without a model, and what comes of their samples."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algorithms.algorithm import Algorithm, Loss, Scores
from algorithms.figures import values
from algorithms.groups import Group
from algorithms.records import Example
from algorithms.records import Sequence as TokenSequence
from algorithms.registry import algorithm_class

Rows = Sequence[Sequence[np.ndarray]]
"""For every example, for each of its responses, log-probs."""


def learner(algo: str, **settings: Mapping[str, Any]) -> Any:
    """The algorithm of that name; settings by section."""
    kind: type[Algorithm] = algorithm_class(algo)
    sections = {name: section.model_validate(settings.get(name, {})) for name, section in kind.sections.items()}
    return kind(algo, sections)


class Answers:
    """Answers by numbers that are given; a response is known by its instruction and its place."""

    step, seed, longest_response, pad_id = 0, 0, 10_000, 0
    state: Mapping[str, float] = {}

    def __init__(
        self,
        examples: Sequence[Example] = (),
        *,
        policy: Rows = (),
        reference: Rows = (),
        share_prompts: bool = True,
        longest_row: int = 10_000,
    ) -> None:
        self.share_prompts, self.longest_row, self.token_budget = share_prompts, longest_row, longest_row
        self._policy, self._reference = _by_response(examples, policy), _by_response(examples, reference)
        self.num_asked = 0

    def policy(self, sequences: Sequence[TokenSequence]) -> list[np.ndarray]:
        """As given."""
        self.num_asked += 1
        return [self._policy[s.uid, s.sample_index] for s in sequences]

    def reference(self, sequences: Sequence[TokenSequence]) -> list[np.ndarray]:
        """As given."""
        return [self._reference[s.uid, s.sample_index] for s in sequences]

    def reference_of(self, examples: Sequence[Example]) -> list[list[np.ndarray]]:
        """As given."""
        return [self.reference(e.sequences) for e in examples]

    def rewards(self, sequences: Sequence[TokenSequence]) -> list[float]:
        """As given, one number a response."""
        return [float(row[0]) for row in self.policy(sequences)]

    def greedy_hits(self, sequences: Sequence[TokenSequence]) -> list[int]:
        """One in every response."""
        return [1 for _ in sequences]

    def critiques(self, examples: Sequence[Example]) -> None:
        """No engine writes any."""

    def deal(self, uids: Sequence[str], *, epoch: int = 0) -> list[list[int]]:
        """All into one step."""
        return [list(range(len(uids)))]

    def draw(self, name: str) -> int:
        """One that is always the same."""
        return len(name)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Untimed."""
        return nullcontext()


class Policy:
    """What a model thinks of every response, leaves of the gradient."""

    def __init__(self, examples: Sequence[Example], rows: Rows, *, dtype: torch.dtype = torch.float32) -> None:
        self.rows = {
            key: torch.from_numpy(row).to(dtype).clone().requires_grad_()
            for key, row in _by_response(examples, rows).items()
        }

    def loss(self, algorithm: Algorithm, groups: Sequence[Group]) -> tuple[Tensor, dict[str, float]]:
        """The objective of one micro-batch, and its figures."""
        of = self.learned(algorithm, groups)
        return of.losses.sum(), values(of.figures)

    def learned(self, algorithm: Algorithm, groups: Sequence[Group]) -> Loss:
        """The same as workers see it."""
        pieces = tuple(self.rows[s.uid, s.sample_index] for g in groups for s in g.sequences)
        return algorithm.objective()(Scores(logprobs=pieces), groups)

    def gradients(self) -> list[np.ndarray]:
        """By every response's log-probs, which are forgotten; 0 where nothing was learned."""
        found = [np.zeros(r.shape) if r.grad is None else r.grad.numpy().copy() for r in self.rows.values()]
        for row in self.rows.values():
            row.grad = None
        return found


def _by_response(examples: Sequence[Example], rows: Rows) -> dict[tuple[str, int], np.ndarray]:
    if not rows:
        return {}
    return {
        (s.uid, s.sample_index): row
        for e, of in zip(examples, rows, strict=True)
        for s, row in zip(e.sequences, of, strict=True)
    }
