"""One item in, one reward with a status out. Every item carries its own id through; nothing is shared but the judge."""

from remote_rm.consistency import Consistency, ConsistencyScorer
from remote_rm.schema import ConsistencyItem, JudgedItem, Parts, RewardItem, ScoredItem
from remote_rm.scorers.combine import combine
from remote_rm.scorers.rulebook import STRICT, Rulebook
from remote_rm.scorers.slots import answer_sentence, tail

_CONSISTENCY = {"consistent": 1.0, "inconsistent": -1.0, "unknown": 0.0}


class Rewarder:
    """Scores items by one rulebook."""

    def __init__(self, consistency: ConsistencyScorer, rulebook: Rulebook = STRICT) -> None:
        self._consistency = consistency
        self._rulebook = rulebook

    async def score(self, item: RewardItem) -> ScoredItem:
        """Reward one completion. The judge is asked only where its verdict can matter: when the answer is right."""
        if (why := unspeakable(item.response)) is not None:
            return failed(item.id, Parts(), f"the response {why}")
        shape = self._rulebook.format(item.response)
        if item.label is None:
            return failed(item.id, Parts(format=shape), "the item has no label")
        accuracy = self._rulebook.accuracy(item.response, item.label)
        if accuracy == 0.0:
            parts = Parts(format=shape, accuracy=accuracy)
            return ScoredItem(id=item.id, reward=combine(shape, accuracy, None), parts=parts, status="scored")
        found = await self._consistency.score(*self._rulebook.slots(item.response))
        if found.status == "failed":
            return failed(item.id, Parts(format=shape, accuracy=accuracy), found.detail)
        return _judged(item.id, shape, accuracy, found)

    async def judge(self, item: ConsistencyItem) -> JudgedItem:
        """Judge one pair of reasoning and answer."""
        for name, text in (("reasoning", item.reasoning), ("answer", item.answer)):
            if (why := unspeakable(text)) is not None:
                return JudgedItem(id=item.id, verdict="unknown", status="failed", raw=f"the {name} {why}")
        found = await self._consistency.score(tail(item.reasoning), answer_sentence(item.answer))
        return JudgedItem(id=item.id, verdict=found.verdict, status=found.status, raw=found.detail)


def _judged(item_id: str, shape: float, accuracy: float, found: Consistency) -> ScoredItem:
    value = _CONSISTENCY[found.verdict]
    return ScoredItem(
        id=item_id,
        reward=combine(shape, accuracy, value),
        parts=Parts(format=shape, accuracy=accuracy, consistency=value),
        status=found.status,
        detail=f"the judge gave no verdict: {found.detail!r}" if found.status == "unknown" else None,
    )


def unspeakable(text: str) -> str | None:
    """Why ``text`` cannot be sent to a judge; None where it can. JSON may hold halves of characters, UTF-8 may not."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        return f"holds {half} at character {error.start}, half of a character, which is no text"
    return None


def failed(item_id: str, parts: Parts, detail: str) -> ScoredItem:
    """No reward, and why."""
    return ScoredItem(id=item_id, reward=None, parts=parts, status="failed", detail=detail)
