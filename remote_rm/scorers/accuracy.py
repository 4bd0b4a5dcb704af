"""Accuracy: the single ``<answer>`` block holds exactly 1 or 2. Nothing else scores."""

import re

_ANSWER = re.compile(r"<answer>(.*)</answer>", re.DOTALL)
_LABEL = re.compile(r"[12]")


def parse_answer(response: str) -> str | None:
    """Return ``"1"`` or ``"2"``, or None when the response holds no single clear answer."""
    if response.count("<answer>") != 1 or response.count("</answer>") != 1:
        return None
    block = _ANSWER.search(response)
    answer = block[1].strip() if block is not None else ""
    return answer if _LABEL.fullmatch(answer) else None


def accuracy_score(response: str, label: str) -> float:
    """1.0 when the parsed answer is the label, else 0.0."""
    return 1.0 if parse_answer(response) == label else 0.0
