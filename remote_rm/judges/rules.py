"""A judge without a model: which response does the reasoning's last conclusion name?

It reads plain English of the shapes ``response 2 says eight``, ``Response 1 is better than response 2`` and ``I
prefer the second response``. Finer prose needs the ``openai`` judge.
"""

import re
from typing import Literal

from remote_rm.judges.protocol import Judgement

Conclusion = Literal["1", "2", "both"]

_NOUN = r"(?:responses?|options?|candidates?)"
_MENTION = re.compile(rf"\b{_NOUN}\s*[#(]?\s*([12])\b|\b(first|second)\s+(?:{_NOUN}|one)\b")
_ORDINALS = {"first": "1", "second": "2"}
_BOTH = re.compile(
    rf"\bboth\s+(?:{_NOUN}|of\s+them|are)\b|\bneither\b|\beither\s+{_NOUN}|\bequally\b|\ba\s+tie\b"
    rf"|\bare\s+(?:equal|tied|the\s+same)\b|\b{_NOUN}\s*[12]\s*(?:and|or|&|/)\s*(?:{_NOUN}\s*)?[12]\b"
)
_SENTENCE_END = re.compile(r"[.!?;\n]+")
_ASIDE = "than|over|because|since|while|whereas|although|though|unlike|compared|rather|instead|despite"
_WHITE = re.compile(r"\s+")
_JOINER = re.compile(rf"(,|:|\b(?:{_ASIDE}|and|but|so|therefore|thus|hence)\b)")
_NEGATIVE = re.compile(r"\b(?:not|no|never|cannot|wrong|incorrect|inaccurate|worse|false|fails?)\b|n't\b")
_OTHER: dict[str, Conclusion] = {"1": "2", "2": "1"}


class RulesJudge:
    """The embedded default judge; deterministic and instantaneous."""

    id = "rules"
    rubric_version = "rules-1"

    async def judge(self, tail: str, answer: str) -> Judgement:
        """Compare the conclusions of both texts."""
        concluded, chosen = conclusion(tail), conclusion(answer)
        raw = f"concludes {concluded or 'nothing'}, answers {chosen or 'nothing'}"
        if concluded is None or chosen is None:
            return Judgement("unknown", raw)
        return Judgement("consistent" if concluded == chosen != "both" else "inconsistent", raw)

    async def probe(self) -> None:
        """Rules are always there."""

    async def close(self) -> None:
        """Nothing to close."""


def conclusion(text: str) -> Conclusion | None:
    """The response that the last sentence naming one decides for; None when no sentence names any."""
    for sentence in reversed(_SENTENCE_END.split(text.lower())):
        sentence = _WHITE.sub(" ", sentence)  # or what may stand between two words is tried at every length
        if _BOTH.search(sentence):
            return "both"
        if _MENTION.search(sentence):
            return _decision(sentence)
    return None


def _decision(sentence: str) -> Conclusion:
    main, asides = [], []
    joiner = ""
    # split() with one group alternates clauses and the words that join them.
    for index, piece in enumerate(_JOINER.split(sentence)):
        if index % 2:
            joiner = piece
        elif _MENTION.search(piece):
            (asides if joiner in _ASIDE.split("|") else main).append(piece)
    # "Response 1 beats ... because response 2 ..." decides in its main clause; a lone aside must do.
    return _decision_of_clause((main or asides)[-1])


def _decision_of_clause(clause: str) -> Conclusion:
    named = {number or _ORDINALS[ordinal] for number, ordinal in _MENTION.findall(clause)}
    if len(named) > 1:
        return "both"
    (response,) = named
    # Of two responses, refusing one is choosing the other; two negations cancel.
    refused = len(_NEGATIVE.findall(clause)) % 2 == 1
    return _OTHER[response] if refused else ("1" if response == "1" else "2")
