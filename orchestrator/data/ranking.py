"""An order out of what people said about one: ``1>2=3>4``, or pairs of which one was preferred."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from orchestrator.data.fields import shown


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
