"""What verdicts or rewards say of the responses to one question: which is best, and how sure that is. Pure.

A judge that writes compares every two responses in both orders; all verdicts on a pair are votes, in whatever order it
was shown. One that cannot be read is no vote and is counted by itself. The response that wins most pairs is the best,
unless one of its pairs has no verdict that can be read.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from orchestrator.evaluation.benchmarks.items import Answered, Item
from orchestrator.evaluation.verdict_readings import READINGS
from orchestrator.evaluation.voting import most_voted


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One text of a judge that writes."""

    order: tuple[int, int]
    """Numbers of the two responses, from 1, as they were shown."""
    sample: int
    """0 is greedy; samples count from 1."""
    verdict: int | None
    """Number of the response that it is for; None where it cannot be read."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two responses compared."""

    responses: tuple[int, int]
    votes: tuple[int, int]
    """For each of them."""
    unreadable: int
    winner: int | None
    """None is a tie: as many votes for the one as for the other, and no greedy verdict that decides."""

    @property
    def is_compared(self) -> bool:
        """False where nothing that was said of the two can be read."""
        return self.winner is not None or sum(self.votes) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a judge that writes says of the responses."""

    winner: int | None
    tied: tuple[int, ...]
    """Where there is no winner, those that won equally many pairs; nobody where one of their pairs is not compared."""
    confidence: float | None
    """Share of the readable votes in the winner's pairs that are for it, in [0, 1]; None without a winner or a vote."""
    unreadable: int
    """Votes of all pairs that cannot be read."""
    pairs: tuple[Pair, ...]
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """What a reward model says of the responses."""

    winner: int | None
    tied: tuple[int, ...]
    """Where there is no winner, those of the greatest reward."""
    rewards: tuple[float | None, ...]
    """Of each response; None where it has none."""
    ranking: tuple[int, ...]
    """Those that have a reward, the greatest first."""
    margin: float | None
    """By how much the first exceeds the second; None where fewer than two have a reward."""
    text: str
    """What a critique reward model wrote."""
    missing: str
    """Why a response has no reward; empty where each has one."""


def compared(answered: Answered, *, form: str, votes: int | None) -> Compared:
    """Count the votes.

    Args:
        answered: Has the greedy text of every order of two responses, and as many samples as vote.
        form: How verdicts are written, of ``READINGS``.
        votes: Samples that vote in each order; None is the greedy verdicts.
    """
    read = READINGS[form]
    judgements = []
    for one in sorted(answered.predictions, key=lambda one: (sorted(one.order), one.order, one.sample)):
        order, verdict = (int(one.order[0]), int(one.order[1])), read(one.text)
        said = None if verdict is None else order[int(verdict) - 1]
        judgements.append(Judgement(order=order, sample=one.sample, verdict=said, text=one.text))
    pairs = [_pair(two, judgements, votes) for two in combinations(range(1, len(answered.item.responses) + 1), 2)]
    wins = Counter(pair.winner for pair in pairs if pair.winner is not None)
    voted_on = {number for pair in pairs if pair.is_compared for number in pair.responses}
    best = [number for number, count in wins.items() if count == max(wins.values())] or voted_on
    # Who was not compared with a rival may have lost to it.
    if any(set(pair.responses) & set(best) for pair in pairs if not pair.is_compared):
        best = []
    winner = next(iter(best)) if len(best) == 1 else None
    return Compared(
        winner=winner,
        tied=() if winner else tuple(sorted(best)),
        confidence=_confidence(winner, pairs),
        unreadable=sum(pair.unreadable for pair in pairs),
        pairs=tuple(pairs),
        judgements=tuple(judgements),
    )


def ranked(answered: Answered) -> Ranked:
    """Order the responses by their rewards."""
    said = answered.predictions[0]
    rewards = {number: reward for number, reward in enumerate(said.rewards, start=1) if not math.isnan(reward)}
    ranking = sorted(rewards, key=lambda number: (-rewards[number], number))
    best = tuple(number for number in ranking if rewards[number] == rewards[ranking[0]])
    winner = best[0] if len(best) == 1 else None
    return Ranked(
        winner=winner,
        tied=() if winner else best,
        rewards=tuple(rewards.get(number) for number in range(1, len(said.rewards) + 1)),
        ranking=tuple(ranking),
        margin=rewards[ranking[0]] - rewards[ranking[1]] if len(ranking) > 1 else None,
        text=said.text,
        missing=said.finish_reason,
    )


def record(item: Item, told: Compared | Ranked) -> dict[str, Any]:
    """A line of ``--out``."""
    return {"row": item.row, "id": item.id, "digest": item.digest} | asdict(told)


def _pair(two: tuple[int, int], judgements: Sequence[Judgement], votes: int | None) -> Pair:
    own = [one for one in judgements if set(one.order) == set(two)]
    greedy = [one.verdict for one in own if one.sample == 0]
    counted = greedy if votes is None else [one.verdict for one in own if 1 <= one.sample <= votes]
    agreed = greedy[0] if len(set(greedy)) == 1 else None
    return Pair(
        responses=two,
        votes=(counted.count(two[0]), counted.count(two[1])),
        unreadable=counted.count(None),
        winner=most_voted(counted, agreed),
    )


def _confidence(winner: int | None, pairs: Sequence[Pair]) -> float | None:
    if winner is None:
        return None
    own = [pair for pair in pairs if winner in pair.responses]
    readable = sum(sum(pair.votes) for pair in own)
    return sum(pair.votes[pair.responses.index(winner)] for pair in own) / readable if readable else None
