"""The released R1-Reward rules, kept to compare with it; lenient where ours are strict.

Not reproduced, because they are defects and not rules: an exception scored as a right answer, and the nearest prompt
by edit distance instead of the item's own label. Symbolic equality is replaced by exact fractions.
Source: yfzhang114/r1_reward@3693413, openrlhf/models/remote_rm/math_verifier_mllm.py.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from remote_rm.schema import Verdict

_FORMAT = re.compile(r"<think>.*?</think><answer>.*?</answer>\n?", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_NUMBER = re.compile(
    r"\\d?frac\{(?P<over>-?[0-9]{1,30})\}\{(?P<under>[0-9]{1,30})\}"
    r"|(?P<top>-?[0-9]{1,30}(?:\.[0-9]{1,30})?)(?:\s*/\s*(?P<bottom>[0-9]{1,30}))?"
)


def released_format(response: str) -> float:
    """1.0 for the released pattern: blocks back to back, one of each opening tag; closing tags may repeat."""
    once = response.count("<think>") == 1 and response.count("<answer>") == 1
    return 1.0 if once and _FORMAT.fullmatch(response) else 0.0


def released_accuracy(response: str, golds: Sequence[str]) -> float:
    """1.0 when the last number of the answer, or of an untagged response, equals that of any gold."""
    value = _last_number(_answer_or_all(response))
    return 1.0 if value is not None and value in {_last_number(_answer_or_all(gold)) for gold in golds} else 0.0


def released_slots(response: str) -> tuple[str, str]:
    """The two texts the released judge prompt held: the last three lines with their tags, and the answer."""
    lines = response.split("<answer>")[0].strip().split("\n")
    answer = _answer_or_all(response).strip()
    if not re.fullmatch(r"[+-]?[0-9]+", answer):
        return ";".join(lines[-3:]), answer
    sentences = {1: "response 1 is better", 2: "response 2 is better"}
    return ";".join(lines[-3:]), sentences.get(int(answer[:30]), "two response are the same")


def released_verdict(reply: str) -> Verdict:
    """Any ``0`` in a judge's reply is inconsistent, else any ``1`` is consistent; so ``10`` is inconsistent."""
    reply = reply.replace("output:", "")
    if "0" in reply:
        return "inconsistent"
    return "consistent" if "1" in reply else "unknown"


def _answer_or_all(text: str) -> str:
    block = _ANSWER.search(text)
    return text if block is None else block[1]


def _last_number(text: str) -> Fraction | None:
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    over, under = found["over"] or found["top"], found["under"] or found["bottom"] or "1"
    return Fraction(over) / int(under) if int(under) != 0 else None
