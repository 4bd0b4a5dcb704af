"""What an algorithm may ask of a run while it makes samples: the policy, the reference, seeds, critiques; all timed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from algorithms.records import Example
from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.choices import shares_prompts
from orchestrator.run.checkpoint import Progress
from orchestrator.run.cursor import PromptCursor, sample_seed, split_whole
from orchestrator.run.metrics import PhaseClock
from orchestrator.training.generated import GeneratedCritiques
from orchestrator.training.session import Session
from workers.models.needs import max_positions
from workers.multimodal.prompt_encoder import PromptEncoder

_START = Progress(step=0, num_updates=0, policy_version=0, cursor=PromptCursor(num_prompts=1, seed=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAsk:
    """A run's answers; see ``algorithms.algorithm.Ask``."""

    session: Session
    share_prompts: bool
    longest_row: int
    """Most tokens of a prompt with all that follows it."""
    pad_id: int = 0
    generated: GeneratedCritiques | None = None
    """Writes critiques for the steps that learn from the model's own; None where no step does."""
    progress: Progress = _START
    clock: PhaseClock = field(default_factory=PhaseClock)

    def at(self, progress: Progress, clock: PhaseClock) -> "RunAsk":
        """The same, of the step after ``progress``."""
        return replace(self, progress=progress, clock=clock)

    @property
    def step(self) -> int:
        """Steps finished."""
        return self.progress.step

    @property
    def state(self) -> Mapping[str, float]:
        """Of the step before."""
        return self.progress.learner_state

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.session.config.run.seed

    @property
    def token_budget(self) -> int:
        """Of a micro-batch."""
        return self.session.config.policy.tokens_per_microbatch

    @property
    def longest_response(self) -> int:
        """That an engine writes."""
        return self.session.config.rollout.max_new_tokens

    def policy(self, sequences: Sequence[TokenSequence]) -> list[np.ndarray]:
        """Under the weights of the moment."""
        return _responses(sequences, self._of_policy("score", sequences))

    def reference(self, sequences: Sequence[TokenSequence]) -> list[np.ndarray]:
        """Asked now, of its workers or of the policy's base."""
        if self.session.config.reference.mode == "lora_off":
            return _responses(sequences, self._of_policy("score", sequences, adapters=False))
        reference = self.session.pool.role("reference")
        return _responses(sequences, reference.each("score", sequences, deadline_s=self.session.deadline_s))

    def reference_of(self, examples: Sequence[Example]) -> list[list[np.ndarray]]:
        """For each example, for each of its sequences, wherever it comes from."""
        if self.session.config.reference.mode == "precomputed":
            return [_precomputed(e) for e in examples]
        rows = iter(self.reference([s for e in examples for s in e.sequences]))
        return [[next(rows) for _ in e.sequences] for e in examples]

    def rewards(self, sequences: Sequence[TokenSequence]) -> list[float]:
        """Of the policy's scalar head."""
        return self._of_policy("rewards", sequences)

    def greedy_hits(self, sequences: Sequence[TokenSequence]) -> list[int]:
        """Of the policy."""
        return self._of_policy("greedy_hits", sequences)

    def critiques(self, examples: Sequence[Example]) -> list[list[TokenSequence | None]] | None:
        """By engines that are given the policy's weights, as far as they leave room for learning."""
        if self.generated is None or not self.generated.is_due(self.step):
            return None
        with self.phase("rollout"):
            return self.generated.write(
                examples, self.progress.policy_version, together=self.share_prompts, token_budget=self.token_budget
            )

    def deal(self, uids: Sequence[str], *, epoch: int = 0) -> list[list[int]]:
        """In random order, the samples of a prompt together."""
        config = self.session.config
        seed = f"{config.run.seed}/epoch {epoch}" if epoch else config.run.seed
        return split_whole(uids, config.updates_per_epoch, seed=seed, epoch=self.progress.policy_version)

    def draw(self, name: str) -> int:
        """By the run's seed and the step."""
        return sample_seed(self.seed, name, 0, self.step)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """On the console and in the step's row."""
        with self.session.phase(name, self.clock):
            yield

    def _of_policy(self, method: str, sequences: Sequence[TokenSequence], **options: Any) -> list[Any]:
        policy = self.session.pool.role("policy")
        return policy.each(method, sequences, deadline_s=self.session.deadline_s, **options)


def run_ask(session: Session, encoder: PromptEncoder, generated: GeneratedCritiques | None = None) -> RunAsk:
    """What the algorithm of a run may ask."""
    config = session.config
    return RunAsk(
        session=session,
        share_prompts=shares_prompts(config, config.model.folder),
        longest_row=longest_row(encoder, config.policy.tokens_per_microbatch),
        pad_id=encoder.pad_token_id,
        generated=generated,
    )


def longest_row(encoder: PromptEncoder, token_budget: int) -> int:
    """Most tokens of a prompt with all that follows it."""
    positions = max_positions(encoder.config)
    return token_budget if positions is None else min(positions, token_budget)


def _responses(sequences: Sequence[TokenSequence], scored: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [row[s.prompt_len :] for s, row in zip(sequences, scored, strict=True)]


def _precomputed(example: Example) -> list[np.ndarray]:
    if example.ref_logprobs is None:
        raise ValueError(f"instruction {example.uid} was read without the reference's table")
    return list(example.ref_logprobs)
