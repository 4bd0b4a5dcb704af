"""Who works on what: the micro-batches of a step. Pure and deterministic.

Memory bounds a micro-batch: its longest row x its rows, in tokens, is within the budget. Time says how they are dealt:
the ranks wait for each other after each one, so the i-th of all ranks are to take equally long. Every rank gets the
same number of them: under ZeRO-3 each forward is a collective of all ranks. Where there are not enough for all, the
last of some ranks are empty: they take part with nothing that counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

from orchestrator.cluster.row_work import TOKENS_ALONE, RowWeights
from orchestrator.errors import GuardStop
from workers.types import GenerationRequest

_TOKENS_OF_KEYS = 8
"""Keys and values of so many tokens take the memory of one token's activations: 4 of 34 bytes a unit and layer."""

Shares = list[list[list[int]]]
"""For each worker its micro-batches, as indices of what is asked about."""


class Deal(Protocol):
    """A way to share out what is asked about."""

    def __call__(self, items: Sequence[Any], *, num_ranks: int) -> Shares:
        """The share of each of ``num_ranks`` workers."""
        ...


def plan_microbatches(
    lengths: Sequence[int],
    *,
    num_ranks: int,
    token_budget: int,
    work: Sequence[int] | None = None,
    padded: bool = True,
    rows: Sequence[int] | None = None,
) -> Shares:
    """Split samples into micro-batches, as few as the budget allows, and deal them out to ranks.

    Sorted by length, an optimal split is made of neighbours. A round takes as long as the slowest of its micro-batches.
    Sorted by their work and dealt round by round, all rounds together take at most one micro-batch, the costliest,
    longer than ranks that never wait; and never longer than a split and a deal by tokens alone.

    Args:
        lengths: Tokens of each sample, of each of its rows where it has several.
        token_budget: Bound on one micro-batch, tokens with padding.
        work: How long each sample, or row of it, keeps a rank busy, in any unit; None = its tokens.
        padded: Every row is filled up to the longest of its micro-batch, and takes as long.
        rows: Of each sample, which stay together; None = 1.
    Returns:
        For each rank its micro-batches, the most work first, each a list of indices into ``lengths``; as many on every
        rank, empty ones at the end. One rank has no empty ones.
    Raises:
        GuardStop: a sample above the budget, which is to be found out before there are workers.
    """
    rows = rows or [1] * len(lengths)
    _check_budget([length * count for length, count in zip(lengths, rows, strict=True)], token_budget)
    by_tokens = _Items(lengths, lengths, rows, token_budget, padded=True)
    fewest = len(by_tokens.fill(token_budget, None))
    num_batches = min(len(lengths), -(-fewest // num_ranks) * num_ranks)
    few_tokens = by_tokens.exactly(num_batches, by_tokens.least_tokens(num_batches))
    if work is None:
        return _deal(few_tokens, by_tokens, num_ranks)
    # Neither is better for all lengths: few tokens mean little padding, equal work little waiting.
    items = _Items(lengths, work, rows, token_budget, padded=padded)
    equal_work = items.exactly(num_batches, items.least_work(num_batches))
    plans = [_deal(batches, items, num_ranks) for batches in (equal_work, few_tokens)]
    return min(plans, key=lambda plan: sum(max(map(items.work_of, heads)) for heads in zip(*plan, strict=True)))


@dataclass(frozen=True, slots=True)
class SampleSize:
    """What planning needs to know of one sample."""

    uid: str
    """Its prompt."""
    prompt_len: int
    length: int
    """Prompt and completion, tokens."""
    patches: int = 0
    """Of the prompt's images."""


def plan_samples(
    samples: Sequence[SampleSize],
    *,
    share_prompts: bool,
    num_ranks: int,
    token_budget: int,
    weights: RowWeights = TOKENS_ALONE,
) -> Shares:
    """``plan_microbatches`` over prompts: samples that share one stay together, and it counts once.

    Args:
        share_prompts: False plans every sample by itself.
        weights: What makes a row slow.
    Returns:
        As ``plan_microbatches``, indices into ``samples``.
    Raises:
        GuardStop: as ``plan_microbatches``.
    """
    _check_budget([s.length for s in samples], token_budget)
    rows = _rows(samples, token_budget) if share_prompts else [[i] for i in range(len(samples))]
    if len(rows) % num_ranks:
        rows = _more_rows(rows, num_ranks)
    lengths, work = [], []
    for row in rows:
        first = samples[row[0]]
        completions = [samples[i].length - first.prompt_len for i in row]
        lengths.append(group_cost(first.prompt_len, completions, share_prompts=True))
        work.append(weights.of_row(first.prompt_len, completions, first.patches))
    plan = plan_microbatches(
        lengths, num_ranks=num_ranks, token_budget=token_budget, work=work, padded=not share_prompts
    )
    return [[[i for row in batch for i in rows[row]] for batch in batches] for batches in plan]


@dataclass(frozen=True, slots=True)
class GroupSize:
    """What planning needs to know of responses that must learn together."""

    prompt_len: int
    completions: tuple[int, ...]
    """Tokens of each response."""
    patches: int = 0
    """Of the prompt's images."""


def plan_groups(
    groups: Sequence[GroupSize],
    *,
    share_prompts: bool,
    num_ranks: int,
    token_budget: int,
    weights: RowWeights = TOKENS_ALONE,
) -> Shares:
    """``plan_microbatches`` over groups, each of which stays whole.

    Returns:
        As ``plan_microbatches``, indices into ``groups``.
    Raises:
        GuardStop: as ``plan_microbatches``.
    """
    lengths, work, rows = [], [], []
    for group in groups:
        completions = group.completions if share_prompts else (max(group.completions),)
        lengths.append(group_cost(group.prompt_len, completions, share_prompts=share_prompts))
        work.append(weights.of_row(group.prompt_len, completions, group.patches))
        rows.append(1 if share_prompts else len(group.completions))
    return plan_microbatches(
        lengths, num_ranks=num_ranks, token_budget=token_budget, work=work, padded=not share_prompts, rows=rows
    )


def group_cost(prompt_len: int, completions: Sequence[int], *, share_prompts: bool) -> int:
    """What responses that must learn together take in a forward, tokens; plan groups of this cost like samples.

    Args:
        completions: Tokens of each response.
        share_prompts: One row for all, or one each, filled up to the longest.
    """
    if not share_prompts:
        return (prompt_len + max(completions)) * len(completions)
    return prompt_len + (len(completions) - 1) * prompt_len // _TOKENS_OF_KEYS + sum(completions)


def deal_prompts(items: Sequence[GenerationRequest], *, num_ranks: int) -> Shares:
    """A batch for each worker, as indices, of about equally many prompts; requests of one prompt stay together."""
    prompts = {uid: number for number, uid in enumerate(dict.fromkeys(r.uid for r in items))}
    batches: list[list[int]] = [[] for _ in range(num_ranks)]
    for index, request in enumerate(items):
        batches[prompts[request.uid] * num_ranks // len(prompts)].append(index)
    return [[batch] for batch in batches]


def _check_budget(lengths: Sequence[int], token_budget: int) -> None:
    for index, length in enumerate(lengths):
        if length > token_budget:
            raise GuardStop(
                f"sample {index} has {length} tokens, more than policy.tokens_per_microbatch = {token_budget}"
            )


def _rows(samples: Sequence[SampleSize], token_budget: int) -> list[list[int]]:
    """Samples by prompt, no row above the budget."""
    rows: list[list[int]] = []
    open_rows: dict[str, tuple[list[int], int]] = {}
    for index, sample in enumerate(samples):
        row, completed = open_rows.get(sample.uid, ([], 0))
        completed += sample.length - sample.prompt_len
        keys = len(row) * sample.prompt_len // _TOKENS_OF_KEYS  # as ``group_cost`` counts them
        if not row or sample.prompt_len + keys + completed > token_budget:
            row, completed = [], sample.length - sample.prompt_len
            rows.append(row)
        row.append(index)
        open_rows[sample.uid] = row, completed
    return rows


def _more_rows(rows: list[list[int]], num_ranks: int) -> list[list[int]]:
    """The longest rows cut in halves until there is one for every rank, as often as can be."""
    heap = [(-len(row), number, row) for number, row in enumerate(rows)]
    heapify(heap)
    while len(heap) % num_ranks and heap[0][0] < -1:
        _, number, row = heappop(heap)
        for part in (row[: len(row) // 2], row[len(row) // 2 :]):
            heappush(heap, (-len(part), number if part[0] == row[0] else len(rows) + len(heap), part))
    return [row for _, _, row in sorted(heap, key=lambda one: one[1])]


class _Items:
    """What is to be split: lengths and work of their rows, longest first."""

    def __init__(
        self, lengths: Sequence[int], work: Sequence[int], rows: Sequence[int], token_budget: int, *, padded: bool
    ) -> None:
        self._lengths, self._work, self._rows, self._budget, self._padded = lengths, work, rows, token_budget, padded
        self._order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))

    def work_of(self, batch: Sequence[int]) -> int:
        """Of a whole micro-batch."""
        of_each = [self._work[i] for i in batch]
        return max(of_each, default=0) * sum(self._rows[i] for i in batch) if self._padded else sum(of_each)

    def fill(self, tokens: int, most_work: int | None) -> list[list[int]]:
        """Neighbours filled up to so many tokens, and so much work; by tokens alone the fewest batches possible."""
        lengths, work, rows, padded = self._lengths, self._work, self._rows, self._padded
        batches: list[list[int]] = []
        batch: list[int] = []
        width = done = size = 0
        for index in self._order:
            more = max(done, work[index]) if padded else done + work[index]
            size += rows[index]
            fits = width * size <= tokens and (most_work is None or (more * size if padded else more) <= most_work)
            if batch and fits:
                batch.append(index)
                done = more
            else:
                batch, width, done, size = [index], lengths[index], work[index], rows[index]
                batches.append(batch)
        return batches

    def least_tokens(self, num_batches: int) -> list[list[int]]:
        """At most so many, whose largest number of tokens is as small as can be."""
        each = [length * rows for length, rows in zip(self._lengths, self._rows, strict=True)]
        low, high = max(max(each, default=0), sum(each) // max(1, num_batches)), self._budget
        while low < high:
            middle = (low + high) // 2
            if len(self.fill(middle, None)) <= num_batches:
                high = middle
            else:
                low = middle + 1
        return self.fill(low, None)

    def least_work(self, num_batches: int) -> list[list[int]]:
        """At most so many, whose largest work is small, within the budget."""
        if not self._order:
            return []
        each = [self.work_of([i]) for i in self._order]
        low = max(max(each), sum(each) // num_batches)
        high = max(low, *map(self.work_of, self.fill(self._budget, None)))
        while high - low > low >> 10:
            middle = (low + high) // 2
            if len(self.fill(self._budget, middle)) <= num_batches:
                high = middle
            else:
                low = middle + 1
        return self.fill(self._budget, high)

    def exactly(self, num_batches: int, batches: list[list[int]]) -> list[list[int]]:
        """So many: the one with the most work of several is cut in halves, again and again."""
        heap = [(-self.work_of(b), b[0], b) for b in batches if len(b) > 1]
        done = [b for b in batches if len(b) == 1]
        heapify(heap)
        while len(heap) + len(done) < num_batches:
            _, _, widest = heappop(heap)
            for part in (widest[: len(widest) // 2], widest[len(widest) // 2 :]):
                if len(part) == 1:
                    done.append(part)
                else:
                    heappush(heap, (-self.work_of(part), part[0], part))
        return done + [b for _, _, b in heap]


def _deal(batches: list[list[int]], items: _Items, num_ranks: int) -> Shares:
    """Round by round, similar work side by side, the most to the rank with the least so far; empty ones last."""
    plan: Shares = [[] for _ in range(num_ranks)]
    load = [0] * num_ranks
    by_work = sorted(((items.work_of(b), b) for b in batches), key=lambda one: (-one[0], one[1][0]))
    for start in range(0, len(by_work), num_ranks):
        here = by_work[start : start + num_ranks]
        lightest_first = sorted(range(num_ranks), key=lambda rank: (load[rank], rank))
        for rank, (work, batch) in zip(lightest_first, [*here, *[(0, [])] * (num_ranks - len(here))], strict=True):
            plan[rank].append(list(batch))
            load[rank] += work
    return plan
