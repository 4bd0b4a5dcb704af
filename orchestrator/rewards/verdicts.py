"""Reading a judgement: which of two responses is better. What does not say it plainly is None, never a guess."""

import re
from typing import Literal

Verdict = Literal["1", "2"]
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def parse_verdict(text: str) -> Verdict | None:
    """Return the verdict of the single ``<answer>`` block, or None when there is no clear one."""
    blocks = _ANSWER.findall(text)
    if len(blocks) != 1 or text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    answer = blocks[0].strip()
    return answer if answer in ("1", "2") else None
