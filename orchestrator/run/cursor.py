"""The order of a run's data, and the seed of a sample. Pure and deterministic, the same on any machine."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Self

_SEED_BITS = 63


def sample_seed(run_seed: int, uid: str, sample_index: int, policy_version: int, drawn: int = 0) -> int:
    """Seed of one sample, 63 bits: the same for the same arguments, on any machine.

    Args:
        drawn: Tokens of it that are there already, sampled by other seeds.
    """
    parts = ("sample", run_seed, uid, sample_index, policy_version, *((drawn,) if drawn else ()))
    return _digest(*parts) >> (256 - _SEED_BITS)


def shuffled_order(num_prompts: int, *, seed: int | str, epoch: int) -> list[int]:
    """The order of one epoch: indices sorted by their hash, so no library's generator can change it."""
    return sorted(range(num_prompts), key=lambda index: _digest("order", seed, epoch, index))


def split_whole(prompts: Sequence[str], num_parts: int, *, seed: int | str, epoch: int) -> list[list[int]]:
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


def _dealt(units: list[list[int]], num_parts: int, *, seed: int | str, epoch: int) -> list[list[int]]:
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


@dataclass(frozen=True, slots=True)
class SourceCursor:
    """Where the run stands in one of several sources."""

    name: str
    num_prompts: int
    weight: float
    taken: int = 0
    """Prompts taken since the run began, those of earlier rounds through the source too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCursor:
    """Where the run stands in its data; a checkpoint keeps it."""

    num_prompts: int
    seed: int
    epoch: int = 0
    position: int = 0
    """Prompts of this epoch already taken."""
    sources: tuple[SourceCursor, ...] = ()
    """Where the data are of several: their prompts stand in this order in the data set."""

    def __post_init__(self) -> None:
        if self.sources and sum(source.num_prompts for source in self.sources) != self.num_prompts:
            raise ValueError(f"num_prompts = {self.num_prompts} is not the sum of those of the sources")
        if self.num_prompts < 1 or not 0 <= self.position < self.num_prompts:
            raise ValueError(f"position = {self.position} must be in [0, num_prompts = {self.num_prompts})")

    def take(self, count: int) -> tuple[list[PromptPick], Self]:
        """The next ``count`` prompts, running on into the next epochs, and the cursor behind them.

        Every epoch takes each prompt once. Of several sources an epoch is as many prompts as there are, whose sources
        take turns by weight, see ``_source_turns``; each source is gone through once before any of its prompts comes
        again.
        """
        if self.sources:
            return self._take_mixed(count)
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

    def _take_mixed(self, count: int) -> tuple[list[PromptPick], Self]:
        turns, sources = _source_turns(self.sources, count)
        starts = [0, *accumulate(source.num_prompts for source in self.sources)]
        at = [source.taken for source in self.sources]
        picks: list[PromptPick] = []
        orders: dict[tuple[int, int], list[int]] = {}
        seen: dict[int, int] = {}
        for turn in turns:
            source = self.sources[turn]
            epoch, place = divmod(at[turn], source.num_prompts)
            if (turn, epoch) not in orders:  # by name, so that sources of equal length have orders of their own
                seed = f"{self.seed}/{source.name}"
                orders[turn, epoch] = shuffled_order(source.num_prompts, seed=seed, epoch=epoch)
            index = starts[turn] + orders[turn, epoch][place]
            picks.append(PromptPick(index, seen.get(index, 0)))
            seen[index] = seen.get(index, 0) + 1
            at[turn] += 1
        epochs, position = divmod(self.position + count, self.num_prompts)
        return picks, replace(self, epoch=self.epoch + epochs, position=position, sources=sources)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers for a checkpoint."""
        numbers = {
            "num_prompts": self.num_prompts,
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self.position,
        }
        return {**numbers, "sources": [asdict(source) for source in self.sources]} if self.sources else numbers

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        """Read back what ``to_json`` wrote."""
        return cls(
            num_prompts=state["num_prompts"],
            seed=state["seed"],
            epoch=state["epoch"],
            position=state["position"],
            sources=tuple(SourceCursor(**source) for source in state.get("sources", ())),
        )


def _source_turns(sources: Sequence[SourceCursor], count: int) -> tuple[list[int], tuple[SourceCursor, ...]]:
    """The sources of the next ``count`` prompts, and how they stand behind them.

    Each prompt is of the source that is the furthest behind its share: (taken + 1/2) / weight is the smallest, as seats
    are apportioned by Webster's method. So any stretch of the run has the sources in proportion.
    """
    taken = [source.taken for source in sources]
    turns = []
    for _ in range(count):
        turn = min(range(len(sources)), key=lambda at: (taken[at] + 0.5) / sources[at].weight)
        taken[turn] += 1
        turns.append(turn)
    return turns, tuple(replace(source, taken=now) for source, now in zip(sources, taken, strict=True))


def _digest(*parts: int | str) -> int:
    # repr keeps the parts apart: a uid with a separator in it cannot collide with another key.
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest())
