"""From the examples of one optimizer step to what a critique reward model learns from them. Pure.

The loss is that of ``critique_reward_loss``, each mean over the whole step. A response's critique counts once, however
many pairs the response is in, as the mean over its tokens.

Source: MM-RLHF, section 3.2, https://arxiv.org/abs/2502.10391; tie and centring terms: rm_trainer.py:211-355 of its
    release, which counts a critique once for every pair of its response
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from algorithms.maths.critique_reward_loss import mean_weights
from algorithms.records import Example, PreferenceGroup, RewardTerms
from algorithms.records import Sequence as TokenSequence


class CritiqueWeights(Protocol):
    """The weights of the terms, as the configuration's ``critique_rm`` section has them."""

    @property
    def score_weight(self) -> float: ...
    @property
    def tie_weight(self) -> float: ...
    @property
    def centering(self) -> float: ...
    @property
    def critique_weight(self) -> float: ...


def reward_groups(
    examples: Sequence[Example],
    settings: CritiqueWeights,
    *,
    share_prompts: bool,
    generated: Sequence[Sequence[TokenSequence | None]] = (),
) -> list[PreferenceGroup]:
    """One group an instruction; without shared prompts one a comparison.

    Args:
        generated: For each example, for each of its sequences, the one that its reward is read from instead; None
            reads it from its own. Empty reads every reward from its own.
    """
    num_pairs, num_ties = (sum(map(len, kind)) for kind in ([e.pairs for e in examples], [e.ties for e in examples]))
    preference_weight, tie_weight = mean_weights(
        num_pairs, num_ties, score_weight=settings.score_weight, tie_weight=settings.tie_weight
    )
    num_responses = sum(len({i for pair in (*e.pairs, *e.ties) for i in pair}) for e in examples)
    groups = []
    for number, example in enumerate(examples):
        others = generated[number] if generated else [None] * len(example.sequences)
        unwritten = set(range(len(example.sequences)))
        for pairs, ties in _parts(example, share_prompts=share_prompts):
            used = sorted({i for pair in (*pairs, *ties) for i in pair})
            at = {index: position for position, index in enumerate(used)}
            critiques = [
                _critique_weights(example, i, settings.critique_weight / num_responses * (i in unwritten)) for i in used
            ]
            unwritten -= set(used)
            added = [(place, other) for place, i in enumerate(used) if (other := others[i]) is not None]
            score_of = np.arange(len(used))
            score_of[[place for place, _ in added]] = np.arange(len(added)) + len(used)
            critiques += [np.zeros(len(other.input_ids), np.float32) for _, other in added]
            groups.append(
                PreferenceGroup(
                    sequences=(*(example.sequences[i] for i in used), *(other for _, other in added)),
                    score_of=score_of,
                    score_weights=(),
                    ref_scores=np.zeros(len(used)),
                    terms=RewardTerms(
                        pairs=np.array([(at[i], at[j]) for i, j in (*pairs, *ties)]),
                        is_tie=np.array([False] * len(pairs) + [True] * len(ties)),
                        weights=np.full(len(pairs) + len(ties), 1.0 / (num_pairs + num_ties)),
                        preference_weight=preference_weight,
                        tie_weight=tie_weight,
                        centre_weight=settings.centering,
                    ),
                    imitation=tuple(critiques),
                )
            )
    return groups


def _parts(
    example: Example, *, share_prompts: bool
) -> Iterator[tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]]:
    """Pairs and ties of each group."""
    if share_prompts:
        yield example.pairs, example.ties
        return
    for pair in example.pairs:
        yield (pair,), ()
    for tie in example.ties:
        yield (), (tie,)


def _critique_weights(example: Example, index: int, share: float) -> np.ndarray:
    sequence, start = example.sequences[index], example.critique_starts[index]
    weights = np.zeros(len(sequence.input_ids), dtype=np.float64)
    weights[start:] = share / (len(weights) - start)
    return weights
