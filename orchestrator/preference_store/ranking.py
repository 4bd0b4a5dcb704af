"""Ranks out of what people said about an order: ``1>2=3>4``, or pairs of which one was preferred."""

from collections.abc import Collection, Iterable
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from orchestrator.datasets.fields import shown


class PreferenceCycle(ValueError):
    """Preferences that lead back to where they began, so that no ranks agree with them."""

    def __init__(self, steps: tuple[tuple[int, int], ...]) -> None:
        super().__init__(steps)
        self.steps = steps
        """Preferred and other response of each step; where a step does not begin with the end of the one before, these
        two tie."""


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


def ranks_from_pairs(
    num_responses: int, *, preferred: Collection[tuple[int, int]], ties: Iterable[tuple[int, int]]
) -> tuple[int, ...]:
    """Rank of each response, 1 being best and none left out, that agrees with every pair and every tie.

    A response stands one below the lowest of those preferred to it, at the top if there is none. Pairs that are all the
    strict preferences of some ranking give that ranking, so that the view over the ranks has these pairs and no other.
    From any other pairs the view keeps all and has more: those that follow (a > b, b > c, therefore a > c), and those
    between responses that nobody compared and that come to stand on different levels.

    Args:
        preferred: Indices of the preferred and of the other response.

    Raises:
        PreferenceCycle: no ranks agree with them.
    """
    tied = _tied(num_responses, ties)
    above: dict[int, set[int]] = {leader: set() for leader in tied}
    steps: dict[tuple[int, int], tuple[int, int]] = {}
    for winner, loser in preferred:
        above[tied[loser]].add(tied[winner])
        steps.setdefault((tied[winner], tied[loser]), (winner, loser))
    try:
        order = tuple(TopologicalSorter(above).static_order())
    except CycleError as error:
        raise PreferenceCycle(tuple(steps[pair] for pair in pairwise(error.args[1]))) from error
    ranks: dict[int, int] = {}
    for leader in order:
        ranks[leader] = 1 + max((ranks[better] for better in above[leader]), default=0)
    return tuple(ranks[leader] for leader in tied)


def _tied(num_responses: int, ties: Iterable[tuple[int, int]]) -> list[int]:
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
