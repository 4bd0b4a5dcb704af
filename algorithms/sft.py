"""Supervised learning: the tokens of a demonstration, or of the best stored response, become likelier."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from algorithms.algorithm import Algorithm, Ask, Needs, Objective, Scores, StepSamples
from algorithms.figures import Figure, Tallies
from algorithms.policy_gradient import AlgorithmSection
from algorithms.records import Example, TokenSample
from algorithms.tokens import ENTROPY, TOKEN_ACCURACY, TokenObjective, mean_over, step_weights

if TYPE_CHECKING:
    from torch import Tensor

_HELD_OUT = (
    Figure(
        "eval/token_accuracy",
        "share of the held-out response tokens that are the likeliest",
        TOKEN_ACCURACY.title,
        "held out",
    ),
    Figure(
        "eval/token_logprob",
        "mean log-prob of the held-out response tokens, nats",
        "Held-out log-prob of a token, nats",
        "mean",
    ),
    Figure("eval/num_tokens", "held-out response tokens"),
    Figure("eval/num_instructions", "held-out instructions that those pairs or tokens belong to"),
)


@dataclass(frozen=True, slots=True)
class CrossEntropy(TokenObjective):
    """−log π of every counted token."""

    def loss_map(
        self, samples: Sequence[TokenSample], scores: Scores, logprobs: "Tensor", mask: "Tensor"
    ) -> "tuple[Tensor, Tallies]":
        """Also tells how many tokens the model would have written itself."""
        from algorithms.maths.policy_losses import sft_loss_map

        return sft_loss_map(logprobs, mask), {TOKEN_ACCURACY.name: mean_over(scores.greedy, mask)}


class Sft(Algorithm):
    """Cross-entropy, aggregated as the online algorithms aggregate their losses."""

    sections = {"algorithm": AlgorithmSection}
    figures = (*_HELD_OUT, TOKEN_ACCURACY, ENTROPY)

    @property
    def needs(self) -> Needs:
        """Demonstrations, or stored responses."""
        return Needs(data=("demonstrations", "preferences"), responses="best")

    def objective(self) -> Objective:
        """Of response tokens."""
        return CrossEntropy()

    def samples(self, batch: Sequence[Example], ask: Ask) -> StepSamples:
        """All of them in one update."""
        section = self.settings["algorithm"]
        assert isinstance(section, AlgorithmSection)
        sequences = [s for example in batch for s in example.sequences]
        weights = step_weights(sequences, aggregation=section.aggregation, longest_response=ask.longest_response)
        return StepSamples([[TokenSample(sequence=s, loss_weight=w) for s, w in zip(sequences, weights, strict=True)]])

    def evaluate(self, examples: Sequence[Example], ask: Ask) -> dict[str, float]:
        """How well it would have written held-out responses."""
        if not examples:
            return {}
        sequences = [s for example in examples for s in example.sequences]
        hits, scored = sum(ask.greedy_hits(sequences)), ask.policy(sequences)
        count = sum(len(s.input_ids) - s.prompt_len for s in sequences)
        found = (
            hits / count,
            float(sum(row.sum(dtype=np.float64) for row in scored)) / count,
            float(count),
            float(len(examples)),
        )
        return {figure.name: value for figure, value in zip(_HELD_OUT, found, strict=True)}
