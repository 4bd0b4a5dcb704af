"""How published scripts read which of two responses is better, each with its faults; ``data.verdicts`` is ours.

"1" is the response shown first. None is what a script cannot read.
"""

import re
from typing import Literal

from orchestrator.data.verdicts import Verdict, parse_verdict, single_answer

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_MOST_DIGITS = 18
"""Of a number that is read: Python refuses thousands of them."""
_OFFICIAL = re.compile(
    r"(?:overall judgment|therefore).*answer\s*(\d+)\s*is\s*(?:the\s*)?(?:slightly\s*)?better", re.IGNORECASE
)
_FIRST_BETTER, _SECOND_BETTER = "Answer 1 is better", "Answer 2 is better"
_CHOICES = "12"

R1Script = Literal["any_line", "first_line"]


def r1_student(text: str, *, script: R1Script = "any_line") -> str | None:
    """What R1-Reward's scripts take for the answer: the first answer block, else a digit that is 1 or 2.

    Args:
        script: ``any_line`` takes the last such digit of the text (VL-RewardBench, Multimodal RewardBench), and
            ``first_line`` the last of the first line that has one (MM-RLHF-RewardBench).
    Source: R1-Reward, inference/*/r1_reward.py.
    """
    tagged = _TAGGED.search(text)
    if tagged is not None:
        return tagged[1].strip()
    lines = text.split("\n") if script == "first_line" else [text]
    digits = next((found for line in lines if (found := [c for c in line if c in _CHOICES])), [])
    return digits[-1] if digits else None


def r1_verdict(text: str, *, script: R1Script = "any_line") -> Verdict:
    """Whether that is 1 to Python; anything else, nothing at all included, is a verdict for the second response."""
    student = r1_student(text, script=script)
    try:
        return "1" if student is not None and float(student) == 1 else "2"
    except ValueError:
        return "2"


def vl_reward_bench_number(text: str) -> int | None:
    """The number in the last "Overall Judgment: Answer N is better", which may be neither 1 nor 2.

    Source: VL-RewardBench, cal.py, distribution; there a number that is not the worse answer's agrees.
    """
    found = _OFFICIAL.search(text.replace("\n", "").replace("*", ""))
    return int(found[1][:_MOST_DIGITS]) if found else None


def unified_verdict(text: str, *, better: Verdict) -> bool:
    """Whether the text holds "Answer N is better" for the better one; holding both is right, too.

    Source: UnifiedReward, benchmark_evaluation, test_qwen_vlreward_bench.py.
    """
    return (_FIRST_BETTER if better == "1" else _SECOND_BETTER) in text


def says_unified(text: str) -> bool:
    """Whether the text holds "Answer N is better" at all; that of a judge who was asked for another form does not."""
    return _FIRST_BETTER in text or _SECOND_BETTER in text


def bracketed_verdict(text: str) -> Verdict | None:
    """The first response with "[[A]]" anywhere, else the second with "[[B]]".

    Source: Multimodal RewardBench, scripts/2_get_accuracy.py, where nothing is a random letter.
    """
    return "1" if "[[A]]" in text else "2" if "[[B]]" in text else None


def unified_answer(text: str) -> Verdict | None:
    """The one of "Answer 1 is better" and "Answer 2 is better" that the text holds; None with both or neither.

    Of a text with an answer block that block is read alone: the reasoning before it may say either of one aspect.

    Source: ours, for UnifiedReward, and UnifiedReward-Think, which reasons before its answer block.
    """
    if "<answer>" in text or "</answer>" in text:
        text = single_answer(text) or ""
    found = {v for v, words in (("1", _FIRST_BETTER), ("2", _SECOND_BETTER)) if words.lower() in text.lower()}
    if len(found) != 1:
        return None
    return "1" if found == {"1"} else "2"


def bracketed_answer(text: str) -> Verdict | None:
    """The one of "[[A]]" and "[[B]]" that the text holds; None with both or neither. Source: ours."""
    return None if "[[A]]" in text and "[[B]]" in text else bracketed_verdict(text)


def overall_judgment(text: str) -> Verdict | None:
    """The number of ``vl_reward_bench_number`` where it is 1 or 2. Source: ours."""
    number = vl_reward_bench_number(text)
    return "1" if number == 1 else "2" if number == 2 else None


READINGS = {
    "tagged": parse_verdict,
    "answer_is_better": unified_answer,
    "bracketed": bracketed_answer,
    "overall_judgment": overall_judgment,
}
"""Strict readings, by what a prompt asks a judge to write."""
