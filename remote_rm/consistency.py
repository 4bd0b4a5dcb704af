"""Asking the judge: the cache first, then one of so many slots, under one deadline, for as long as somebody waits.

pair ──► cache ──hit──► cached
           └──miss──► slot ──► judge ──► verdict ──► cache ──► scored
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from remote_rm.judges.protocol import ABANDONED, Judge, JudgeError, Judgement
from remote_rm.metrics import Metrics
from remote_rm.schema import Status, Verdict
from remote_rm.verdict_cache import CacheKey, VerdictCache

_AFTER_LEAVING_S = 15.0
"""For which a judge that was asked is still listened to when nobody waits any more: its verdict is paid for."""
_K = TypeVar("_K")
_V = TypeVar("_V")


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
            cache.on_fault, cache.on_rejected = metrics.cache_faults.inc, metrics.cache_rejected.inc
            self._known, self._kept = _Together(cache.get_many), _Together(lambda given: _all_kept(cache, given))
        self._metrics = metrics
        self._slots = asyncio.Semaphore(concurrency)
        self._deadline_s = deadline_s
        self._waiting, self._running = set[asyncio.Task[Any]](), set[asyncio.Task[Any]]()

    async def score(self, tail: str, answer: str) -> Consistency:
        """Judge one pair; a judge that cannot be had becomes the status ``failed``, never an exception."""
        key = CacheKey.of(self.judge.id, self.judge.rubric_version, tail, answer)
        if self._cache is not None and (known := self._cache.remembered(key) or await self._known.one(key)) is not None:
            return self._count(Consistency(known.verdict, "cached", known.raw), source="cache")
        task = asyncio.create_task(self._judged(key, tail, answer))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._leave(task)
            raise

    async def close(self) -> None:
        """Ask nobody any more, keep the verdicts that have come, and close the judge and the cache."""
        for task in (tasks := [*self._waiting, *self._running]):
            task.cancel(ABANDONED)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.judge.close()
        if self._cache is not None:
            await self._kept.ended()
            self._cache.close()

    async def _judged(self, key: CacheKey, tail: str, answer: str) -> Consistency:
        try:
            async with asyncio.timeout(self._deadline_s), self._slots:
                task = asyncio.current_task()
                assert task is not None
                self._waiting.discard(task)
                self._running.add(task)
                judgement = await self._ask(tail, answer)
        except TimeoutError:
            detail = f"the judge gave no answer within {self._deadline_s:g} s"
            return self._count(Consistency("unknown", "failed", detail), source="judge")
        except JudgeError as error:
            return self._count(Consistency("unknown", "failed", str(error)), source="judge")
        if judgement.verdict == "unknown":
            return self._count(Consistency("unknown", "unknown", judgement.raw), source="judge")
        if self._cache is not None:
            await self._kept.one(key, judgement)
        return self._count(Consistency(judgement.verdict, "scored", judgement.raw), source="judge")

    def _leave(self, task: "asyncio.Task[Any]") -> None:
        """Who waited has gone: a judge that was not asked yet is not, one that was has a while."""
        if task in self._running and self._cache is not None:
            asyncio.get_running_loop().call_later(_AFTER_LEAVING_S, task.cancel, ABANDONED)
        else:
            task.cancel(ABANDONED)

    async def _ask(self, tail: str, answer: str) -> Judgement:
        with self._metrics.judgements_running.track_inprogress(), self._metrics.judge_seconds.time():
            return await self.judge.judge(tail, answer)

    def _count(self, result: Consistency, *, source: str) -> Consistency:
        verdict = "failed" if result.status == "failed" else result.verdict
        self._metrics.verdicts.labels(verdict, source).inc()
        return result


def _all_kept(cache: VerdictCache, given: Mapping[CacheKey, Judgement]) -> dict[CacheKey, None]:
    cache.put_many(given)
    return dict.fromkeys(given)


class _Together(Generic[_K, _V]):
    """Many small calls of one thread: those that come while one is under way are made together, in one next."""

    def __init__(self, act: Callable[[Mapping[_K, Any]], Mapping[_K, _V]]) -> None:
        """``act`` runs in a thread."""
        self._act = act
        self._asked: list[tuple[_K, Any, asyncio.Future[_V | None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def one(self, key: _K, given: Any = None) -> _V | None:
        """What ``act`` says of it. What was given is given, whether or not somebody still waits."""
        answer = asyncio.get_running_loop().create_future()
        self._asked.append((key, given, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await answer

    async def ended(self) -> None:
        """Return when nothing is under way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, []
                try:
                    found = await asyncio.to_thread(self._act, {key: given for key, given, _ in asked})
                except BaseException as error:
                    for _, _, answer in asked:
                        if not answer.done():
                            answer.set_exception(error)
                    raise
                for key, _, answer in asked:
                    if not answer.done():
                        answer.set_result(found.get(key))
        finally:
            self._task = None
