"""Consistency of one pair: the cache first, then the judge, under one bound on how many are asked at once."""

import asyncio
from dataclasses import dataclass

from remote_rm.judges.protocol import Judge, JudgeError, Judgement
from remote_rm.metrics import Metrics
from remote_rm.schema import Status, Verdict
from remote_rm.verdict_cache import CacheKey, VerdictCache


@dataclass(frozen=True, slots=True)
class Consistency:
    """A verdict with its status; ``failed`` always carries the verdict ``unknown``."""

    verdict: Verdict
    status: Status
    detail: str


class ConsistencyScorer:
    """Shared by all requests; holds no state about any of them."""

    def __init__(
        self, judge: Judge, cache: VerdictCache | None, metrics: Metrics, *, concurrency: int, deadline_s: float
    ) -> None:
        """``deadline_s`` bounds one judgement with its queueing and retries, so no handler outlives its client."""
        self.judge = judge
        self._cache = cache
        if cache is not None:
            cache.on_fault = metrics.cache_faults.inc
        self._metrics = metrics
        self._slots = asyncio.Semaphore(concurrency)
        self._deadline_s = deadline_s

    async def score(self, tail: str, answer: str) -> Consistency:
        """Judge one pair; a judge that cannot be had becomes the status ``failed``, never an exception."""
        key = CacheKey.of(self.judge.id, self.judge.rubric_version, tail, answer)
        if self._cache is not None and (known := await asyncio.to_thread(self._cache.get, key)) is not None:
            return self._count(Consistency(known.verdict, "cached", known.raw), source="cache")
        try:
            async with asyncio.timeout(self._deadline_s), self._slots:
                judgement = await self._ask(tail, answer)
        except TimeoutError:
            detail = f"the judge gave no answer within {self._deadline_s:g} s"
            return self._count(Consistency("unknown", "failed", detail), source="judge")
        except JudgeError as error:
            return self._count(Consistency("unknown", "failed", str(error)), source="judge")
        if judgement.verdict == "unknown":
            return self._count(Consistency("unknown", "unknown", judgement.raw), source="judge")
        if self._cache is not None:
            await asyncio.to_thread(self._cache.put, key, judgement)
        return self._count(Consistency(judgement.verdict, "scored", judgement.raw), source="judge")

    async def close(self) -> None:
        """Close the judge and the cache."""
        await self.judge.close()
        if self._cache is not None:
            self._cache.close()

    async def _ask(self, tail: str, answer: str) -> Judgement:
        with self._metrics.judgements_running.track_inprogress(), self._metrics.judge_seconds.time():
            return await self.judge.judge(tail, answer)

    def _count(self, result: Consistency, *, source: str) -> Consistency:
        verdict = "failed" if result.status == "failed" else result.verdict
        self._metrics.verdicts.labels(verdict, source).inc()
        return result
