"""One item in, one reward with a status out. Nothing is shared between items but the judge, its cache and the counts.

item ──► rules of every part ──► judge, where its verdict can matter: the cache first, under one bound ──► formula
"""

import asyncio
import logging
from collections.abc import Sequence

from remote_rm.consistency import ConsistencyScorer
from remote_rm.parts import Question, Unscorable, answer_sentence, tail
from remote_rm.rulebooks import PARTS, STRICT, Parts, Rulebook
from remote_rm.schema import ConsistencyItem, JudgedItem, RewardItem, ScoredItem, Verdict

_log = logging.getLogger(__name__)
_VALUES: dict[Verdict, float] = {"consistent": 1.0, "inconsistent": -1.0, "unknown": 0.0}
_MOST_CHARACTERS = 1 << 20
"""Of one text that is scored, four times what any model writes: rules read it in the event loop."""


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
    """Why ``text`` cannot be scored; None where it can. JSON may hold halves of characters, UTF-8 may not."""
    if len(text) > _MOST_CHARACTERS:
        return f"has {len(text)} characters, at most {_MOST_CHARACTERS} are read"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        return f"holds {half} at character {error.start}, half of a character, which is no text"
    return None
