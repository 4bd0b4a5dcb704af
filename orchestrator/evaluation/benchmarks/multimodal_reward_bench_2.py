"""Multimodal RewardBench 2: four tasks of a thousand pairs, whose responses are texts and images mixed."""

from collections.abc import Hashable, Sequence

from orchestrator.evaluation.benchmarks.pairs import PairRow, judge_counts, judge_figures, shares_right, verdicts
from orchestrator.evaluation.figures import Counting, Figure, by_group, count, mean, ratio

TASKS = ("t2i", "edit", "interleaved", "reasoning")
WAYS = ("strict", "official")


def count_multimodal_reward_bench_2(
    rows: Sequence[PairRow],
    keys: Sequence[Hashable] | None = None,
    *,
    way: str = "strict",
    votes: int | None = None,
) -> Counting:
    """Accuracy in [0, 1] of judgements, over all tasks and of each, which is the row's category.

    Args:
        way: ``strict``: what is unreadable is wrong. ``official``: it leaves the denominator, which raises the
            accuracy. The release calls this mean of both orders positional-consistent; how often both orders agree is
            ``consistent`` in ``strict``.
        keys: Names of the pairs; their numbers without.
        votes: Samples that vote, odd; of ``strict``.
    Source: Hu et al. 2025, https://arxiv.org/abs/2512.16899; MMRB2, evaluate/compute_scores/compute_accuracy.py.
    """
    tasks = [row.category for row in rows]
    if way == "strict" or not any(row.judgements for row in rows):
        right = shares_right(rows, votes=votes)
        figures = [mean("accuracy", right), *by_group("accuracy", right, tasks), *judge_figures(rows, votes=votes)]
        return count(way, _names(rows, keys), figures, counts=judge_counts(rows, votes=votes))
    read = [[(one, v) for one, v in verdicts(row) if v is not None] for row in rows]
    hits = [float(sum(verdict == one.better for one, verdict in own)) for own in read]
    asked = [float(len(own)) for own in read]
    figures = [Figure("accuracy", (ratio(hits, asked),))]
    for task in sorted(set(tasks)):
        own = [float(one == task) for one in tasks]
        part, whole = ([a * b for a, b in zip(n, own, strict=True)] for n in (hits, asked))
        figures.append(Figure(f"accuracy/{task}", (ratio(part, whole),)))
    counts = judge_counts(rows)
    left_out = counts["unreadable"]
    notes = [f"{left_out} unreadable verdicts are left out, which raises the accuracy"] if left_out else []
    return count(way, _names(rows, keys), figures, counts=counts, notes=notes)


def _names(rows: Sequence[PairRow], keys: Sequence[Hashable] | None) -> Sequence[Hashable]:
    return range(len(rows)) if keys is None else keys
