"""One item in, one reward with a status out. Nothing is shared between items but the judge, its cache and the counts.

item ──► rules of every part ──► judge, where its verdict can matter: the cache first, under one bound ──► formula
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from remote_rm.judges.protocol import Judge, JudgeError, Judgement
from remote_rm.parts import Question, Unscorable, answer_sentence, tail
from remote_rm.rulebooks import PARTS, STRICT, Parts, Rulebook
from remote_rm.schema import ConsistencyItem, JudgedItem, RewardItem, ScoredItem, Status, Verdict
from remote_rm.verdict_cache import CacheKey, VerdictCache

_log = logging.getLogger(__name__)
_VALUES: dict[Verdict, float] = {"consistent": 1.0, "inconsistent": -1.0, "unknown": 0.0}
_JUDGE_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One instance a service: two services in one process do not share counters."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.items = Counter(
            "raylign_reward_items", "Items answered, by route and status.", ["route", "status"], registry=self._registry
        )
        self.verdicts = Counter(
            "raylign_judge_verdicts",
            "Answers by verdict (or failed) and source.",
            ["verdict", "source"],
            registry=self._registry,
        )
        self.judge_seconds = Histogram(
            "raylign_judge_seconds",
            "Time of one judgement, retries included.",
            buckets=_JUDGE_BUCKETS_S,
            registry=self._registry,
        )
        self.cache_faults = Counter(
            "raylign_verdict_cache_faults", "Times the verdict cache failed.", registry=self._registry
        )
        self.judgements_running = Gauge("raylign_judgements_running", "Judgements under way.", registry=self._registry)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


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


class Rewarder:
    """Scores items by one rulebook."""

    def __init__(self, consistency: ConsistencyScorer, rulebook: Rulebook = STRICT) -> None:
        self._consistency, self._rulebook = consistency, rulebook

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts, in order."""
        return tuple(PARTS)

    @property
    def weights(self) -> dict[str, float]:
        """None: the formula is no weighted sum."""
        return {}

    async def score_all(self, items: Sequence[RewardItem]) -> list[ScoredItem]:
        """Reward every item; one that ends in an exception fails alone, whatever the exception is."""
        found = await asyncio.gather(*(self.score(item) for item in items), return_exceptions=True)
        return [
            failed(item.id, fault(one)) if isinstance(one, BaseException) else one
            for item, one in zip(items, found, strict=True)
        ]

    async def score(self, item: RewardItem) -> ScoredItem:
        """Reward one completion. The judge is asked only where its verdict can matter."""
        parts: dict[str, float | None] = dict.fromkeys(PARTS)
        questions: dict[str, Question] = {}
        if (why := unspeakable(item.response)) is not None:
            return failed(item.id, f"the response {why}")
        try:
            for name, rule in self._rulebook.rules().items():
                found = rule(item)
                if isinstance(found, Question):
                    questions[name] = found
                else:
                    parts[name] = found
        except Unscorable as error:
            return failed(item.id, str(error), parts)
        status, detail = "scored", None
        for name, question in questions.items() if self._rulebook.asks_judge(parts) else ():
            judged = await self._consistency.score(question.tail, question.answer)
            if judged.status == "failed":
                return failed(item.id, judged.detail, parts)
            parts[name] = _VALUES[judged.verdict]
            if status != "unknown" and judged.status != "scored":
                status = judged.status
            if judged.status == "unknown":
                detail = f"the judge gave no verdict: {judged.detail!r}"
        reward = self._rulebook.reward(parts)
        return ScoredItem(id=item.id, reward=reward, parts=parts, status=status, detail=detail)

    async def judge(self, item: ConsistencyItem) -> JudgedItem:
        """Judge one pair of reasoning and answer."""
        for name, text in (("reasoning", item.reasoning), ("answer", item.answer)):
            if (why := unspeakable(text)) is not None:
                return JudgedItem(id=item.id, verdict="unknown", status="failed", raw=f"the {name} {why}")
        found = await self._consistency.score(tail(item.reasoning), answer_sentence(item.answer))
        return JudgedItem(id=item.id, verdict=found.verdict, status=found.status, raw=found.detail)


def failed(item_id: str, detail: str, parts: Parts | None = None, *, is_final: bool = False) -> ScoredItem:
    """No reward, and why; with the parts that were found before that."""
    known = dict(parts) if parts is not None else dict.fromkeys(PARTS)
    return ScoredItem(id=item_id, reward=None, parts=known, status="failed", detail=detail, is_final=is_final)


def fault(error: BaseException) -> str:
    """Log a defect of ours; the client gets its name."""
    if not isinstance(error, Exception):
        raise error
    _log.error("an item could not be scored", exc_info=error)
    return f"{type(error).__name__} in the reward service; its log says where"


def unspeakable(text: str) -> str | None:
    """Why ``text`` cannot be sent to a judge; None where it can. JSON may hold halves of characters, UTF-8 may not."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        return f"holds {half} at character {error.start}, half of a character, which is no text"
    return None
