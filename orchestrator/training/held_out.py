"""How well the policy does on instructions that it does not learn from."""

from collections.abc import Sequence

import numpy as np

from algorithms.records import Example, PairTerms, PreferenceGroup
from orchestrator.cluster.pool import WorkerPool
from orchestrator.config.schema import TrainConfig
from orchestrator.training.groups import GroupMaker, score_ratios
from orchestrator.training.reference import Reference

_TIE = 1e-7
"""Difference below which two responses count as equally good, nats: float32 sums of one forward differ by less."""


class HeldOut:
    """The held-out examples; what the reference thinks of them is asked once."""

    def __init__(
        self,
        examples: Sequence[Example],
        config: TrainConfig,
        pool: WorkerPool,
        *,
        groups: GroupMaker,
        reference: Reference,
    ) -> None:
        assert config.offline is not None
        self._examples, self._pool, self._maker, self._reference = examples, pool, groups, reference
        self._algorithm, self._beta, self._deadline_s = config.offline, config.preference.beta, config.rollout.timeout_s
        self._groups: list[PreferenceGroup] | None = None

    def evaluate(self) -> dict[str, float]:
        """Pair accuracy and margin; for supervised learning the accuracy and log-prob of tokens. Empty without data."""
        if not self._examples:
            return {}
        return self._tokens() if self._algorithm.learns_from == "best" else self._pairs()

    def _pairs(self) -> dict[str, float]:
        if self._groups is None:
            # Responses with a label and no rival have no pair to be right about.
            paired = [e for e in self._examples if e.pairs]
            self._groups = self._maker.pairs(paired, self._reference.of_examples(paired))
        if not self._groups:
            return {}
        sequences = [s for g in self._groups for s in g.sequences]
        rewards = self._algorithm.gives_rewards
        if rewards:
            rows = iter(np.array([r]) for r in self._pool.policy_rewards(sequences, deadline_s=self._deadline_s))
        else:
            scored = self._pool.policy_score(sequences, deadline_s=self._deadline_s)
            rows = iter(row[s.prompt_len :] for s, row in zip(sequences, scored, strict=True))
        margins = []
        for group in self._groups:
            ratios = score_ratios(group, [next(rows) for _ in group.sequences])
            margins.append(pair_margins(group, ratios))
        margin = np.concatenate(margins) * (1.0 if rewards else self._beta)
        return {
            "eval/pair_accuracy": float(np.mean(np.where(np.abs(margin) <= _TIE, 0.5, margin > 0))),
            "eval/margin": float(np.mean(margin)),
            "eval/num_pairs": float(len(margin)),
            "eval/num_instructions": float(len({group.uid for group in self._groups})),
        }

    def _tokens(self) -> dict[str, float]:
        sequences = [s for e in self._examples for s in e.sequences]
        hits = sum(self._pool.policy_greedy_hits(sequences, deadline_s=self._deadline_s))
        scored = self._pool.policy_score(sequences, deadline_s=self._deadline_s)
        count = sum(len(s.input_ids) - s.prompt_len for s in sequences)
        return {
            "eval/token_accuracy": hits / count,
            "eval/token_logprob": float(sum(row.sum(dtype=np.float64) for row in scored)) / count,
            "eval/num_tokens": float(count),
            "eval/num_instructions": float(len(self._examples)),
        }


def pair_margins(group: PreferenceGroup, ratios: np.ndarray) -> np.ndarray:
    """float64 ``[P]``: score of the chosen less that of the rejected, of every pair of a group."""
    assert isinstance(group.terms, PairTerms)
    chosen, rejected = group.terms.pairs.T
    return ratios[chosen] - ratios[rejected]
