"""The order of a run's data, and the seed of a sample. Pure and deterministic, the same on any machine."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

_SEED_BITS = 63


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


def _digest(*parts: int | str) -> int:
    # repr keeps the parts apart: a uid with a separator in it cannot collide with another key.
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest())
