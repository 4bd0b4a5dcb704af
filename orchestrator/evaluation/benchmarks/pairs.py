"""Pairs of responses, one better than the other, judged by verdicts or by rewards: what all such benchmarks share.

A generative judge is asked in both orders, or in one that a seed chooses, and a verdict that cannot be read is for
neither response. Invariants: a pair is right by the share of its orders that are judged right, with what is unreadable
counted as wrong; the first-position rate is taken of readable verdicts alone, so that nonsense cannot look like balance
or bias.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from orchestrator.data.order import stream_key
from orchestrator.data.verdicts import Verdict
from orchestrator.evaluation.benchmarks.items import Answered
from orchestrator.evaluation.figures import Figure, mean, ratio
from orchestrator.evaluation.verdict_readings import READINGS
from orchestrator.evaluation.voting import vote

_EVEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge wrote of a pair, shown in one of the two orders."""

    better_first: bool
    """Whether the better response was shown first."""
    text: str
    verdict: Verdict | None
    """What it comes to, read strictly; "1" is the response shown first."""
    sample: int = 0
    """0 is greedy; samples count from 1."""

    @property
    def better(self) -> Verdict:
        """The verdict that is right."""
        return "1" if self.better_first else "2"

    @property
    def is_right(self) -> bool:
        """Whether it is for the better response."""
        return self.verdict == self.better


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """One judged pair."""

    id: str
    """As in the file: several rows may share it."""
    category: str = ""
    """As the file has it, where it has one."""
    media: str = ""
    """Path of its image or video, where it has one."""
    judgements: tuple[Judgement, ...] = ()
    better_listed_first: bool = True
    """Whether the file lists the better response first."""
    rewards: tuple[float, float] | None = None
    """Of the better and the worse response, from a reward model; then there are no judgements."""

    @property
    def is_preferred(self) -> bool | None:
        """Whether the better response has strictly the greater reward; None where there are judgements instead."""
        return None if self.rewards is None else self.rewards[0] > self.rewards[1]


def verdicts(row: PairRow, *, votes: int | None = None) -> list[tuple[Judgement, Verdict | None]]:
    """A verdict for each order that the pair was shown in, with the judgement that says which order that was.

    Args:
        votes: Samples that vote in each order, odd, the greedy verdict between equal ones; None is the greedy verdict.
    Raises:
        ValueError: an order has no greedy judgement or too few samples; see ``vote``.
    """
    found = []
    for first in (True, False):
        own = [one for one in row.judgements if one.better_first is first]
        if not own:
            continue
        greedy = next((one for one in own if one.sample == 0), None)
        if greedy is None:
            raise ValueError(f"pair {row.id!r} has no greedy judgement in one of its orders")
        sampled = sorted((one for one in own if one.sample), key=lambda one: one.sample)
        said = greedy.verdict if votes is None else vote([one.verdict for one in sampled], greedy.verdict, k=votes)
        found.append((greedy, said))
    return found


def shares_right(rows: Sequence[PairRow], *, votes: int | None = None) -> list[float]:
    """Of each pair the share of its orders that are judged right; of rewards 1 or 0.

    Raises:
        ValueError: a pair has neither judgements nor rewards; see ``verdicts``.
    """
    found = []
    for row in rows:
        if row.is_preferred is not None:
            found.append(float(row.is_preferred))
            continue
        said = verdicts(row, votes=votes)
        if not said:
            raise ValueError(f"pair {row.id!r} has neither a judgement nor rewards")
        found.append(sum(verdict == one.better for one, verdict in said) / len(said))
    return found


def judge_figures(rows: Sequence[PairRow], *, votes: int | None = None) -> list[Figure]:
    """What only judgements have; none of rewards.

    ``unreadable`` of all verdicts, ``first_position`` of the readable ones, ``accuracy_readable`` likewise; where pairs
    were shown in both orders, ``consistent`` (both verdicts for the same response) and ``both_right``; where samples
    vote, ``any_of``.
    """
    if not any(row.judgements for row in rows):
        return []
    said = [verdicts(row, votes=votes) for row in rows]
    readable = [[(one, v) for one, v in own if v is not None] for own in said]
    num_readable = [float(len(own)) for own in readable]
    figures = [
        Figure("unreadable", (ratio([len(s) - n for s, n in zip(said, num_readable, strict=True)], map(len, said)),)),
        Figure("first_position", (ratio([sum(v == "1" for _, v in own) for own in readable], num_readable),)),
        Figure(
            "accuracy_readable", (ratio([sum(v == one.better for one, v in own) for own in readable], num_readable),)
        ),
    ]
    twice = [len(own) == _EVEN for own in said]
    if any(twice):
        same = [t and _agrees(own) for t, own in zip(twice, said, strict=True)]
        right = [t and all(v == one.better for one, v in own) for t, own in zip(twice, said, strict=True)]
        figures += [mean("consistent", list(map(float, same)), among=twice)]
        figures += [mean("both_right", list(map(float, right)), among=twice)]
    return figures if votes is None else [*figures, any_of(rows, k=votes)]


def _agrees(said: Sequence[tuple[Judgement, Verdict | None]]) -> bool:
    """Whether the verdicts of both orders are for the same response."""
    preferred = [None if verdict is None else verdict == one.better for one, verdict in said]
    return None not in preferred and len(set(preferred)) == 1


def judge_counts(rows: Sequence[PairRow], *, votes: int | None = None) -> dict[str, int]:
    """Rows, verdicts and unreadable ones; of rewards, pairs that are undecided: equal rewards, or one that is none."""
    if any(row.judgements for row in rows):
        said = [verdict for row in rows for _, verdict in verdicts(row, votes=votes)]
        return {"rows": len(rows), "verdicts": len(said), "unreadable": said.count(None)}
    undecided = sum(r.rewards is None or not (r.rewards[0] > r.rewards[1] or r.rewards[0] < r.rewards[1]) for r in rows)
    return {"rows": len(rows), "undecided": undecided}


def any_of(rows: Sequence[PairRow], *, k: int) -> Figure:
    """``any_of_k``: pairs of which one of the first k samples is right, in each order by itself.

    Raises:
        ValueError: an order has fewer samples.
    """
    shares = []
    for row in rows:
        orders = [
            [one for one in row.judgements if one.better_first is first and one.sample] for first in (True, False)
        ]
        asked = [sorted(own, key=lambda one: one.sample)[:k] for own in orders if own]
        if not asked or any(len(own) < k for own in asked):
            raise ValueError(f"pair {row.id!r} has fewer than k = {k} samples")
        shares.append(sum(any(one.is_right for one in own) for own in asked) / len(asked))
    return mean(f"any_of_{k}", shares)


def one_order(row: PairRow, *, seed: int, key: Hashable) -> list[Judgement]:
    """For each sample the judgement of one order, which the seed and the pair choose among those that it has."""
    by_sample: dict[int, list[Judgement]] = {}
    for one in row.judgements:
        by_sample.setdefault(one.sample, []).append(one)
    return [
        sorted(own, key=lambda one: one.better_first)[stream_key("order", seed, str(key), sample) % len(own)]
        for sample, own in sorted(by_sample.items())
    ]


def better_first(row: PairRow) -> Judgement | None:
    """The greedy judgement with the better response shown first, as R1-Reward's scripts show every pair."""
    return next((one for one in row.judgements if one.better_first and one.sample == 0), None)


def pair_rows(answered: Sequence[Answered], *, reading: str) -> list[PairRow]:
    """What was said about pairs, whose truth is the number of the better response.

    Args:
        reading: How the judge was asked to write its verdict, of ``READINGS``.
    """
    rows, read = list[PairRow](), READINGS[reading]
    for one in answered:
        item, better = one.item, one.item.truths[0]
        judgements = [
            Judgement(better_first=p.order[0] == better, text=p.text, verdict=read(p.text), sample=p.sample)
            for p in one.predictions
            if p.order
        ]
        rewards = next((p.rewards for p in one.predictions if p.rewards), None)
        rows.append(
            PairRow(
                id=item.id,
                category=item.category,
                media=str(item.meta.get("media", "")),
                judgements=tuple(judgements),
                better_listed_first=better == "1",
                rewards=None if rewards is None else (rewards[int(better) - 1], rewards[2 - int(better)]),
            )
        )
    return rows
