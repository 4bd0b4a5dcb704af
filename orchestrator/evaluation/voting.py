"""Several verdicts on one question: a majority.

Only verdicts that can be read are votes.

Source: R1-Reward, https://arxiv.org/abs/2505.02835, Voting@K and "Any"; its code is not released.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

V = TypeVar("V", bound=Hashable)


def vote(verdicts: Sequence[V | None], greedy: V | None, *, k: int) -> V | None:
    """The most frequent of the first ``k`` verdicts; the greedy one decides between equally frequent ones.

    Args:
        verdicts: Of samples, in the order of their seeds; None where one cannot be read, which is no vote.
        greedy: The verdict without sampling.
        k: Samples that vote, odd.
    Returns:
        None where no vote decides and the greedy verdict cannot be read.
    Raises:
        ValueError: k is even or below 1, or there are fewer samples.
    """
    if k < 1 or k % 2 == 0:
        raise ValueError(f"votes = {k} must be odd and at least 1")
    if len(verdicts) < k:
        raise ValueError(f"votes = {k}, but {len(verdicts)} samples were drawn")
    return most_voted(verdicts[:k], greedy)


def most_voted(votes: Sequence[V | None], otherwise: V | None) -> V | None:
    """The most frequent of the votes, None being none; ``otherwise`` where no single one is."""
    counted = Counter(verdict for verdict in votes if verdict is not None)
    most = max(counted.values(), default=0)
    winners = [verdict for verdict, times in counted.items() if times == most]
    return winners[0] if len(winners) == 1 else otherwise
