"""Rewards of named parts: each scorer says a number of every sample, and the reward is their weighted sum.

items ──► groups (the samples of a prompt) ──► every scorer, all at once ──► weighted sum, item by item
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from remote_rm.functions.pool import FunctionFailed, FunctionPool, Takes
from remote_rm.rewarding import failed, fault, unspeakable
from remote_rm.schema import Media, RewardItem, ScoredItem, Status


@dataclass(frozen=True, slots=True)
class Found:
    """What a scorer says of one sample."""

    value: float | None
    """None where it has nothing to say, or has failed."""
    status: Status = "scored"
    detail: str | None = None
    is_final: bool = False
    """Of a failure: asking again would end in the same."""


class Scorer(Protocol):
    """One part of the reward."""

    @property
    def name(self) -> str:
        """Of the part."""
        ...

    @property
    def weight(self) -> float:
        """What it counts."""
        ...

    async def score(self, group: Sequence[RewardItem]) -> list[Found]:
        """Of each sample of a prompt; never raises for what a sample or somebody's code is at fault for."""
        ...


class Composer:
    """Rewards by a list of scorers."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self._scorers = tuple(scorers)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts, in order."""
        return tuple(scorer.name for scorer in self._scorers)

    @property
    def weights(self) -> dict[str, float]:
        """What each part counts."""
        return {scorer.name: scorer.weight for scorer in self._scorers}

    async def score_all(self, items: Sequence[RewardItem]) -> list[ScoredItem]:
        """Reward every item; those that name one group are the samples of one prompt."""
        groups: dict[str, list[RewardItem]] = {}
        for item in items:
            groups.setdefault(item.group or f"/{item.id}", []).append(item)
        found = await asyncio.gather(*(self._score_group(group) for group in groups.values()), return_exceptions=True)
        by_id: dict[str, ScoredItem] = {}
        for group, scored in zip(groups.values(), found, strict=True):
            if isinstance(scored, BaseException):
                why, none = fault(scored), dict.fromkeys(self.names)
                scored = [failed(item.id, why, none) for item in group]
            by_id |= {item.id: item for item in scored}
        return [by_id[item.id] for item in items]

    async def _score_group(self, group: list[RewardItem]) -> list[ScoredItem]:
        odd = {item.id: f"the response {why}" for item in group if (why := unspeakable(item.response)) is not None}
        fine = [item for item in group if item.id not in odd]
        columns = await asyncio.gather(*(scorer.score(fine) for scorer in self._scorers)) if fine else ()
        rows = dict(zip((item.id for item in fine), zip(*columns, strict=True), strict=True)) if fine else {}
        return [
            failed(item.id, odd[item.id], dict.fromkeys(self.names), is_final=True)
            if item.id in odd
            else self._composed(item.id, rows[item.id])
            for item in group
        ]

    def _composed(self, item_id: str, found: Sequence[Found]) -> ScoredItem:
        parts = {scorer.name: one.value for scorer, one in zip(self._scorers, found, strict=True)}
        for scorer, one in zip(self._scorers, found, strict=True):
            if one.status == "failed":
                return failed(item_id, f"{scorer.name}: {one.detail}", parts, is_final=one.is_final)
        if all(value is None for value in parts.values()):
            return failed(item_id, "no part of the reward says anything of it", parts, is_final=True)
        statuses = {one.status for one in found}
        status: Status = "unknown" if "unknown" in statuses else "cached" if "cached" in statuses else "scored"
        detail = next((one.detail for one in found if one.status == "unknown"), None)
        reward = sum(weight * (parts[name] or 0.0) for name, weight in self.weights.items())
        return ScoredItem(id=item_id, reward=reward, parts=parts, status=status, detail=detail)


class FunctionScorer:
    """A function that runs in a process of the pool."""

    def __init__(self, pool: FunctionPool, number: int, roots: Sequence[Path]) -> None:
        """
        Args:
            number: Of the function, in the pool's order.
            roots: Folders that files of images may lie in; a request that names others is not served.
        """
        self._pool, self._number, self._roots = pool, number, tuple(roots)
        self.name, self.weight = pool.specs[number].name, pool.specs[number].weight

    async def score(self, group: Sequence[RewardItem]) -> list[Found]:
        """One call for the group, or one for each sample."""
        takes = self._pool.takes[self._number]
        if takes.is_of_group:
            return await self._call(group, takes)
        calls = await asyncio.gather(*(self._call((item,), takes) for item in group))
        return [call[0] for call in calls]

    async def _call(self, group: Sequence[RewardItem], takes: Takes) -> list[Found]:
        first = group[0]
        given: dict[str, Any] = {"prompt": first.prompt, "label": first.label, "row": first.row, "images": []}
        if takes.is_of_group:
            given |= {"completions": [item.response for item in group], "lengths": [item.length for item in group]}
            given |= {"finish_reasons": [item.finish_reason for item in group]}
        else:
            given |= {"completion": first.response, "length": first.length, "finish_reason": first.finish_reason}
        try:
            if takes.images:
                given["images"] = [picture_source(one, self._roots) for one in first.media]
            values = await self._pool.call(self._number, given, count=len(group))
        except FunctionFailed as error:
            return [Found(None, "failed", str(error), is_final=True)] * len(group)
        return [Found(value) for value in values]


def picture_source(media: Media, roots: Sequence[Path]) -> Mapping[str, str]:
    """Where a picture is to be had.

    Raises:
        FunctionFailed: neither its bytes nor the name of a file that may be read came with the request.
    """
    if media.data_base64 is not None:
        return {"base64": media.data_base64}
    path = Path(media.path).resolve() if media.path else None
    if path is None or not any(path.is_relative_to(root) for root in roots) or not path.is_file():
        raise FunctionFailed(f"image {media.sha256[:12]} came without bytes, and with no file that may be read here")
    return {"path": str(path)}
