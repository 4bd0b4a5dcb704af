"""What can be known of an answer without a model: a choice or a yes or no that is right, its length, whether it ended.

Parts of a reward beside that of a reward model, as in Fact-RLHF; the released run has
``correctness?released=true``, ``length_cost?longest=896&weight=10`` and ``unfinished?weight=8``.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from remote_rm.scorers.answers import answer_of

_CHOICE = re.compile(r"[A-Z]")
_STATED = re.compile(r"(?<![\w-])correct (?:option|answer|choice) is:? *\**\(?([A-Z])(?![\w'’])", re.IGNORECASE)
_FIRST = re.compile(r"\(?([A-Z])(?:[).:]|\Z)")
_YES_NO = re.compile(r"\W*(yes|no)(?![\w'’-])", re.IGNORECASE)


def correctness(
    completion: str,
    label: str | None,
    *,
    right: float = 2.0,
    wrong: float = 0.0,
    no_right: float = 1.0,
    no_wrong: float = -1.0,
    yes_right: float = 0.0,
    yes_wrong: float = 0.0,
    released: bool = False,
) -> float | None:
    """A number for a right or a wrong answer, by what the label is: a letter, ``No`` or ``Yes``; None without a label.

    Of a letter: the answer begins with it ("A.", "(A)") or says at last that "the correct option is A". Of yes or no:
    it begins with the word, and 0 is for what begins with neither.

    Args:
        right, wrong: Where the label is a letter.
        no_right, no_wrong: Where it is no.
        yes_right, yes_wrong: Where it is yes: 0 as released, so that a wrong no costs nothing; 1 and −1 are symmetric.
        released: Read as the released code does: "Nobody" begins with "No", "A" and "no" are no answers.
    Source: LLaVA-RLHF, ppo_trainer.py:181-566
    """
    if label is None or not label.strip():
        return None
    wanted = label.strip()
    if _CHOICE.fullmatch(wanted):
        said = _released_choice(completion, wanted) if released else _choice(completion) == wanted
        return right if said else wrong
    if wanted.casefold() not in ("yes", "no"):
        raise ValueError(f"the label {label!r} is neither a capital letter nor yes or no")
    found = _released_yes_no(completion) if released else _yes_no(completion)
    if found is None:
        return 0.0
    table = (no_right, no_wrong) if wanted.casefold() == "no" else (yes_right, yes_wrong)
    return table[found != wanted.casefold()]


def length_cost(length: int, row: Mapping[str, Any], *, longest: int) -> float:
    """Minus the share of ``longest`` tokens that the response has, times the row's ``length_bonus``, which is 1.

    A negative ``length_bonus`` pays for length.

    Source: LLaVA-RLHF, ppo_trainer.py:568-620
    """
    if longest < 1:
        raise ValueError(f"longest = {longest} should be at least 1")
    factor = row.get("length_bonus")
    factor = 1.0 if factor is None else factor
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        raise ValueError(f"the row's length_bonus is {factor!r}, expected a number")
    return -length / longest * factor


def unfinished(finish_reason: Literal["stop", "length", "abort"]) -> float:
    """0 for a response that came to its end of turn, −1 for one that was cut, whatever it says."""
    return 0.0 if finish_reason == "stop" else -1.0


def _choice(text: str) -> str | None:
    answer = answer_of(text)
    if stated := _STATED.findall(answer):
        return stated[-1].upper()
    first = _FIRST.match(answer)
    return first[1] if first else None


def _yes_no(text: str) -> str | None:
    first = _YES_NO.match(answer_of(text))
    return first[1].lower() if first else None


def _released_choice(text: str, wanted: str) -> bool:
    return text.strip().startswith(f"{wanted}.") or f"correct option is {wanted}." in text


def _released_yes_no(text: str) -> str | None:
    return next((word.lower() for word in ("Yes", "No") if text.strip().startswith(word)), None)
