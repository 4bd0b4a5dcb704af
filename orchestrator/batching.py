"""Who works on what: micro-batches of a step, the order of prompts, the seed of a sample. Pure and deterministic.

A micro-batch is padded to its longest sequence, so its cost is longest length x number of sequences. Every rank gets
the same number of micro-batches: under ZeRO-3 each forward is a collective of all ranks. Where there are not enough for
all, the last of some ranks are empty: they take part with nothing that counts.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

from orchestrator.errors import GuardStop

_SEED_BITS = 63
_TOKENS_OF_KEYS = 8
"""Keys and values of so many tokens take the memory of one token's activations: 4 of 34 bytes a unit and layer."""


def plan_microbatches(lengths: Sequence[int], *, num_ranks: int, token_budget: int) -> list[list[list[int]]]:
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


def plan_samples(
    samples: Sequence[SampleSize], *, share_prompts: bool, num_ranks: int, token_budget: int
) -> list[list[list[int]]]:
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


def sample_seed(run_seed: int, uid: str, sample_index: int, policy_version: int) -> int:
    """Seed of one sample, 63 bits: the same for the same four arguments, on any machine."""
    return _digest("sample", run_seed, uid, sample_index, policy_version) >> (256 - _SEED_BITS)


def shuffled_order(num_prompts: int, *, seed: int, epoch: int) -> list[int]:
    """The order of one epoch: indices sorted by their hash, so no library's generator can change it."""
    return sorted(range(num_prompts), key=lambda index: _digest("order", seed, epoch, index))


def split_whole(prompts: Sequence[str], num_parts: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Deal samples out to the optimizer steps of one rollout, in random order, the samples of a prompt together.

    Siblings part where prompts cannot be dealt out evenly.

    Args:
        prompts: The prompt of each sample.
    Returns:
        At most ``num_parts`` lists of indices into ``prompts``, none empty.
    """
    by_prompt: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_prompt.setdefault(prompt, []).append(index)
    if len(by_prompt) % num_parts == 0:
        return _dealt(list(by_prompt.values()), num_parts, seed=seed, epoch=epoch) if by_prompt else []
    return _dealt([[i] for i in range(len(prompts))], min(num_parts, len(prompts)), seed=seed, epoch=epoch)


def _dealt(units: list[list[int]], num_parts: int, *, seed: int, epoch: int) -> list[list[int]]:
    order = shuffled_order(len(units), seed=seed, epoch=epoch)
    bounds = [i * len(order) // num_parts for i in range(num_parts + 1)]
    return [[i for at in order[a:b] for i in units[at]] for a, b in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class PromptPick:
    """One prompt of a batch."""

    index: int
    """Position in the data set."""
    repeat: int
    """Times the prompt is already in this batch: above 0 when it spans epochs. Tells the samples' names apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCursor:
    """Where the run stands in its data; a checkpoint keeps it."""

    num_prompts: int
    seed: int
    epoch: int = 0
    position: int = 0
    """Prompts of this epoch already taken."""

    def __post_init__(self) -> None:
        if self.num_prompts < 1 or not 0 <= self.position < self.num_prompts:
            raise ValueError(f"position = {self.position} must be in [0, num_prompts = {self.num_prompts})")

    def take(self, count: int) -> tuple[list[PromptPick], Self]:
        """The next ``count`` prompts, running on into the next epochs, and the cursor behind them.

        Every epoch takes each prompt once.
        """
        picks: list[PromptPick] = []
        seen: dict[int, int] = {}
        epoch, position = self.epoch, self.position
        while len(picks) < count:
            taken = shuffled_order(self.num_prompts, seed=self.seed, epoch=epoch)[position:][: count - len(picks)]
            for index in taken:
                picks.append(PromptPick(index, seen.get(index, 0)))
                seen[index] = seen.get(index, 0) + 1
            position += len(taken)
            if position == self.num_prompts:
                epoch, position = epoch + 1, 0
        return picks, replace(self, epoch=epoch, position=position)

    def to_json(self) -> dict[str, int]:
        """Plain numbers for a checkpoint."""
        return {
            "num_prompts": self.num_prompts,
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self.position,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, int]) -> Self:
        """Read back what ``to_json`` wrote."""
        return cls(
            num_prompts=state["num_prompts"],
            seed=state["seed"],
            epoch=state["epoch"],
            position=state["position"],
        )


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


def _deal(batches: list[list[int]], lengths: Sequence[int], num_ranks: int) -> list[list[list[int]]]:
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


def _digest(*parts: int | str) -> int:
    # repr keeps the parts apart: a uid with a separator in it cannot collide with another key.
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest())
