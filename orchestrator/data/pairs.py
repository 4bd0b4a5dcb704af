"""Pairs as a view over ranks, scores or single comparisons: the one place where they are told.

A preference is strict: responses that tie, or one of which has no rank or score, make no pair. Scores are often means
such as 13/3, so that a gap is compared with a tolerance of a few units in the last place of the largest score:
13/3 − 10/3 is 1, not 0.9999999999999996.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, pairwise

from orchestrator.data.records import Response
from orchestrator.data.rows import shown

LARGEST_GAP_ONLY = -1.0
"""The ``score_margin`` that keeps only the pairs at the largest gap of an instruction."""
_RELATIVE_TOLERANCE = 1e-12


class PreferenceCycle(ValueError):
    """Preferences that lead back to where they began, so that no order agrees with them."""

    def __init__(self, steps: tuple[tuple[int, int], ...]) -> None:
        super().__init__(steps)
        self.steps = steps
        """Preferred and other response of each step; where a step does not begin with the end of the one before, these
        two tie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is known of an order of responses, by index of each."""

    preferred_to: tuple[tuple[int, ...], ...]
    """The responses that are worse, ascending: by somebody's word, or because it follows (a > b, b > c: a > c)."""
    tied_with: tuple[tuple[int, ...], ...]
    """The others that are as good, ascending, likewise."""
    ranks: tuple[int, ...] | None
    """1 being best, where the order is total: any two compare or tie. None where that is not known of two of them."""

    @property
    def num_pairs(self) -> int:
        """Strict preferences."""
        return sum(map(len, self.preferred_to))


def parse_ranking(ranking: str, *, num_responses: int) -> tuple[int, ...]:
    """Rank of each response, 1 being best and none left out: ``1>2=3>4`` is (1, 2, 2, 3), ``2>1`` is (2, 1).

    Source: MM-RLHF, section 2.3: one ranking over all responses, ties allowed.

    Raises:
        ValueError: it does not name each of the responses, counted from 1, once.
    """
    levels = [[number.strip() for number in level.split("=")] for level in ranking.split(">")]
    numbers = [str(number) for number in range(1, num_responses + 1)]
    if sorted(number for level in levels for number in level) != sorted(numbers):
        raise ValueError(
            f"{shown(ranking)}, expected each of the numbers 1 to {num_responses} once, joined by '>' and '='"
        )
    ranks = {number: rank for rank, level in enumerate(levels, start=1) for number in level}
    return tuple(ranks[number] for number in numbers)


def order_from_pairs(
    num_responses: int, *, preferred: Collection[tuple[int, int]], ties: Iterable[tuple[int, int]]
) -> Order:
    """The order that every pair and every tie tells, and what follows from them; never more than that.

    Two responses that nobody compared, not even through others, stay apart: neither is better and they do not tie.

    Args:
        preferred: Indices of the preferred and of the other response.

    Raises:
        PreferenceCycle: no order agrees with them.
    """
    leaders = _leaders(num_responses, ties)
    members: dict[int, list[int]] = {leader: [] for leader in leaders}
    for response, leader in enumerate(leaders):
        members[leader].append(response)
    below = _below(leaders, preferred)
    best_first = sorted(below, key=lambda leader: -len(below[leader]))
    total = all(len(below[leader]) == len(best_first) - rank for rank, leader in enumerate(best_first, start=1))
    ranks = {leader: rank for rank, leader in enumerate(best_first, start=1)}
    return Order(
        preferred_to=tuple(tuple(sorted(r for worse in below[leader] for r in members[worse])) for leader in leaders),
        tied_with=tuple(tuple(r for r in members[leader] if r != own) for own, leader in enumerate(leaders)),
        ranks=tuple(ranks[leader] for leader in leaders) if total else None,
    )


def _below(leaders: list[int], preferred: Collection[tuple[int, int]]) -> dict[int, set[int]]:
    """For the leader of each tie, the leaders of all that are worse."""
    worse: dict[int, set[int]] = {leader: set() for leader in leaders}
    steps: dict[tuple[int, int], tuple[int, int]] = {}
    for winner, loser in preferred:
        worse[leaders[winner]].add(leaders[loser])
        steps.setdefault((leaders[winner], leaders[loser]), (winner, loser))
    try:
        worst_first = tuple(TopologicalSorter(worse).static_order())
    except CycleError as error:
        raise PreferenceCycle(tuple(steps[pair] for pair in pairwise(reversed(error.args[1])))) from error
    below: dict[int, set[int]] = {}
    for leader in worst_first:
        below[leader] = worse[leader].union(*(below[loser] for loser in worse[leader]))
    return below


def _leaders(num_responses: int, ties: Iterable[tuple[int, int]]) -> list[int]:
    """One response that stands for all that tie with each."""
    leaders = list(range(num_responses))

    def leader(response: int) -> int:
        while leaders[response] != response:
            response = leaders[response]
        return response

    for one, other in ties:
        first, second = sorted((leader(one), leader(other)))
        leaders[second] = first
    return [leader(response) for response in range(num_responses)]


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
