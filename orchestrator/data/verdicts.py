"""Reading a judgement: which of two responses is better, or how good one is.

What does not say it plainly is None, never a guess.
"""

import re
from collections.abc import Sequence
from typing import Literal

Verdict = Literal["1", "2"]
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{1,30})?|\.[0-9]{1,30})")
_NAMED_SCORE = re.compile(rf"([a-z][a-z0-9_]*)\s*:\s*({_NUMBER.pattern})")
_NAMED_SCORES = re.compile(rf"{_NAMED_SCORE.pattern}(?:(?:\s*[,;]\s*|\s+){_NAMED_SCORE.pattern})*")


def parse_verdict(text: str) -> Verdict | None:
    """Return the verdict of the single ``<answer>`` block, or None when there is no clear one."""
    answer = single_answer(text)
    return answer if answer in ("1", "2") else None


def single_answer(text: str) -> str | None:
    """What stands in the single ``<answer>`` block, or None when there is none or more than one."""
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    block = _ANSWER.search(text)
    return block.group(1).strip() if block else None


def parse_scores(text: str, names: Sequence[str], *, low: float, high: float) -> dict[str, float] | None:
    """Return the numbers of the single ``<answer>`` block behind any thinking; None when one is missing or not clear.

    Args:
        names: Each to stand there once, in any order, as ``name: number``; none reads one number by itself.
        low: Smallest number that counts.
        high: Largest.

    Returns:
        Numbers by name; the one by itself has the empty name.
    """
    answer = single_answer(_THOUGHT.sub("", text, count=1))
    if answer is None:
        return None
    if names:
        if not _NAMED_SCORES.fullmatch(answer):
            return None
        pairs = _NAMED_SCORE.findall(answer)
    else:
        pairs = [("", answer)] if _NUMBER.fullmatch(answer) else []
    found = {name: float(number) for name, number in pairs}
    fits = len(pairs) == len(found) and set(found) == set(names or ("",))
    return found if fits and all(low <= number <= high for number in found.values()) else None
