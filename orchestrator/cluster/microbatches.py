"""Who works on what: the micro-batches of a step. Pure and deterministic.

A micro-batch is padded to its longest sequence, so its cost is longest length x number of sequences. Every rank gets
the same number of micro-batches: under ZeRO-3 each forward is a collective of all ranks. Where there are not enough for
all, the last of some ranks are empty: they take part with nothing that counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


def plan_microbatches(lengths: Sequence[int], *, num_ranks: int, token_budget: int) -> Shares:
    """Split samples into micro-batches, as few as the budget allows, and deal them out to ranks.

    Sorted by length, an optimal split is made of neighbours. The i-th micro-batches of all ranks have similar cost, as
    the ranks wait for each other after each one.

    Args:
        lengths: Tokens of each sample.
        token_budget: Largest cost of one micro-batch, tokens with padding.
    Returns:
        For each rank its micro-batches, longest first, each a list of indices into ``lengths``; as many on every rank,
        empty ones at the end. One rank has no empty ones.
    Raises:
        GuardStop: a sample above the budget, which is to be found out before there are workers.
    """
    _check_budget(lengths, token_budget)
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    fewest = len(_fill(order, lengths, token_budget))
    num_batches = min(len(lengths), -(-fewest // num_ranks) * num_ranks)
    return _deal(_split(order, lengths, num_batches, token_budget), lengths, num_ranks)


@dataclass(frozen=True, slots=True)
class SampleSize:
    """What planning needs to know of one sample."""

    uid: str
    """Its prompt."""
    prompt_len: int
    length: int
    """Prompt and completion, tokens."""


def plan_samples(samples: Sequence[SampleSize], *, share_prompts: bool, num_ranks: int, token_budget: int) -> Shares:
    """``plan_microbatches`` over prompts: samples that share one stay together, and it counts once.

    Args:
        share_prompts: False plans every sample by itself.
    Returns:
        As ``plan_microbatches``, indices into ``samples``.
    Raises:
        GuardStop: as ``plan_microbatches``.
    """
    _check_budget([s.length for s in samples], token_budget)
    rows = _rows(samples, token_budget) if share_prompts else [[i] for i in range(len(samples))]
    while len(rows) % num_ranks and (longest := max((r for r in rows if len(r) > 1), key=len, default=None)):
        at, half = rows.index(longest), len(longest) // 2
        rows[at : at + 1] = [longest[:half], longest[half:]]
    plan = plan_microbatches([_tokens(samples, r) for r in rows], num_ranks=num_ranks, token_budget=token_budget)
    return [[[i for row in batch for i in rows[row]] for batch in batches] for batches in plan]


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
    of_prompt: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        row = of_prompt.get(sample.uid)
        if row is None or _tokens(samples, [*row, index]) > token_budget:
            row = of_prompt[sample.uid] = []
            rows.append(row)
        row.append(index)
    return rows


def _tokens(samples: Sequence[SampleSize], row: Sequence[int]) -> int:
    """What a row takes, in tokens: one prompt, every completion, and the prompt's keys and values for each of them."""
    prompt_len = samples[row[0]].prompt_len
    return group_cost(prompt_len, [samples[i].length - prompt_len for i in row], share_prompts=True)


def _fill(order: Sequence[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Neighbours filled up to a cost of ``capacity``: for samples sorted longest first, the fewest batches possible."""
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= capacity:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _split(order: list[int], lengths: Sequence[int], num_batches: int, token_budget: int) -> list[list[int]]:
    """Exactly ``num_batches`` micro-batches whose largest cost is as small as can be."""
    if not order:
        return []
    low, high = lengths[order[0]], token_budget
    while low < high:
        middle = (low + high) // 2
        if len(_fill(order, lengths, middle)) <= num_batches:
            high = middle
        else:
            low = middle + 1
    batches = _fill(order, lengths, low)
    while len(batches) < num_batches:
        widest = max((b for b in batches if len(b) > 1), key=lambda b: (_cost(b, lengths), -b[0]))
        at, half = batches.index(widest), len(widest) // 2
        batches[at : at + 1] = [widest[:half], widest[half:]]
    return batches


def _deal(batches: list[list[int]], lengths: Sequence[int], num_ranks: int) -> Shares:
    """Round by round, similar costs side by side, the costliest to the rank with the least so far; empty ones last."""
    plan: list[list[list[int]]] = [[] for _ in range(num_ranks)]
    load = [0] * num_ranks
    by_cost = sorted(batches, key=lambda b: (-_cost(b, lengths), b[0]))
    for start in range(0, len(by_cost), num_ranks):
        lightest_first = sorted(range(num_ranks), key=lambda rank: (load[rank], rank))
        here = by_cost[start : start + num_ranks]
        here += [[] for _ in range(num_ranks - len(here))]
        for rank, batch in zip(lightest_first, here, strict=True):
            plan[rank].append(batch)
            load[rank] += _cost(batch, lengths)
    return plan


def _cost(batch: Sequence[int], lengths: Sequence[int]) -> int:
    return max((lengths[i] for i in batch), default=0) * len(batch)
