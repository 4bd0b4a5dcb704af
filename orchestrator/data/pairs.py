"""Pairs as a view over ranks, scores or single comparisons: the one place where they are told.

A preference is strict: responses that tie, or one of which has no rank or score, make no pair. Scores are often means
such as 13/3, so that a gap is compared with a tolerance of a few units in the last place of the largest score:
13/3 − 10/3 is 1, not 0.9999999999999996.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from orchestrator.data.records import Response

LARGEST_GAP_ONLY = -1.0
"""The ``score_margin`` that keeps only the pairs at the largest gap of an instruction."""
_RELATIVE_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Pair:
    """Which of an instruction's responses is preferred to which."""

    chosen: int
    """Index among the responses."""
    rejected: int
    gap: float
    """Difference of the scores or of the ranks, 1 where the two were compared by themselves; positive."""


def preference_pairs(responses: Sequence[Response], *, score_margin: float) -> list[Pair]:
    """Pairs as compared one by one, else by rank, else by score; two equal texts are no pair.

    Args:
        score_margin: see ``pairs_by_score``; ranks and comparisons are ordinal, so it does not apply to them.
    """
    ranks = [response.rank for response in responses]
    if any(response.preferred_to is not None for response in responses):
        pairs = pairs_by_comparison([response.preferred_to for response in responses])
    elif any(rank is not None for rank in ranks):
        pairs = pairs_by_rank(ranks)
    else:
        pairs = pairs_by_score([response.score for response in responses], score_margin=score_margin)
    return [pair for pair in pairs if responses[pair.chosen].text != responses[pair.rejected].text]


def pairs_by_score(scores: Sequence[float | None], *, score_margin: float) -> list[Pair]:
    """Pairs of responses whose scores differ enough, in the order of the responses.

    Args:
        scores: Higher is better; None takes part in no pair.
        score_margin: -1 keeps the pairs at the largest gap, any other value those with a gap of at least that much.

    Raises:
        ValueError: a margin below 0 other than -1.
    Source: VL-RLHF, ``make_vlfeedback_paired_dataset``; gaps are compared exactly there.
    """
    if not (score_margin >= 0 or score_margin == LARGEST_GAP_ONLY):
        raise ValueError(f"score_margin = {score_margin}: must be at least 0, or -1 for the largest gap only")
    tolerance = _RELATIVE_TOLERANCE * max((abs(score) for score in scores if score is not None), default=0.0)
    pairs = [pair for pair in _ordered(scores) if pair.gap > tolerance]
    if score_margin == LARGEST_GAP_ONLY:
        largest = max((pair.gap for pair in pairs), default=0.0)
        return [pair for pair in pairs if pair.gap >= largest - tolerance]
    return [pair for pair in pairs if pair.gap >= score_margin - tolerance]


def pairs_by_rank(ranks: Sequence[int | None]) -> list[Pair]:
    """Every pair with different ranks, 1 being best, in the order of the responses.

    K different ranks give K (K − 1) / 2 pairs; 1 > 2 = 3 > 4 gives 5.

    Source: MM-RLHF, section 4.2.
    """
    return _ordered([None if rank is None else -rank for rank in ranks])


def pairs_by_comparison(preferred_to: Sequence[Sequence[int] | None]) -> list[Pair]:
    """Every pair that was told, in the order of the responses; two of which neither is preferred are no pair.

    Args:
        preferred_to: see ``Response.preferred_to``.
    """
    better = {(i, j) for i, worse in enumerate(preferred_to) for j in worse or ()}
    return [Pair(*pair, 1.0) for pair in sorted(better, key=lambda pair: sorted(pair))]


def tied_pairs(responses: Sequence[Response]) -> list[tuple[int, int]]:
    """Pairs of responses that somebody found equally good, in their order; two equal texts are no pair."""
    if any(response.tied_with is not None for response in responses):
        told = [(i, j) for i, response in enumerate(responses) for j in response.tied_with or () if i < j]
        return [(i, j) for i, j in told if responses[i].text != responses[j].text]
    by_rank = any(response.rank is not None for response in responses)
    values = [response.rank if by_rank else response.score for response in responses]
    tolerance = _RELATIVE_TOLERANCE * max((abs(value) for value in values if value is not None), default=0.0)
    return [
        (i, j)
        for (i, a), (j, b) in combinations(enumerate(values), 2)
        if a is not None and b is not None and abs(a - b) <= tolerance and responses[i].text != responses[j].text
    ]


def _ordered(values: Sequence[float | None]) -> list[Pair]:
    pairs = []
    for (i, a), (j, b) in combinations(enumerate(values), 2):
        if a is not None and b is not None and a != b:
            pairs.append(Pair(i, j, a - b) if a > b else Pair(j, i, b - a))
    return pairs


def unpaired_reason(responses: Sequence[Response], *, score_margin: float) -> str | None:
    """Why these responses make no pair, in a few words; None where they make one."""
    if preference_pairs(responses, score_margin=score_margin):
        return None
    if len(responses) < 2:
        return f"it has {len(responses)} responses, a pair needs 2"
    valued = [r for r in responses if r.is_valued]
    if len(valued) < 2:
        return f"{len(valued)} of its {len(responses)} responses have a rank or a score, a pair needs 2"
    if len({r.text for r in valued}) < 2:
        return "all its responses are the same text"
    if preference_pairs(responses, score_margin=0.0):
        return f"no two of its responses are score_margin = {score_margin:g} apart"
    return "all its responses tie"
