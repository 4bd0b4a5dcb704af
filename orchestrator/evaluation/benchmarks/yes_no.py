"""Reading yes or no in a response. Invariant: what does not say one of them plainly is None, never a guess."""

import re
from typing import Literal

YesNo = Literal["yes", "no"]

_WORD = re.compile(r"(?<![\w-])(yes|no)(?![\w-])", re.IGNORECASE)
_SET_OFF = re.compile(r"(?<![\w-])(yes|no)(?=\W*$|\s*[.,;:!\n])", re.IGNORECASE)
_OPENING = re.compile(r"\W*(yes|no)(?=\W*$|\s*[.,;:!\n])", re.IGNORECASE)
# Phrases in which the word answers nothing: "I have no idea", "not a yes".
_NO_ANSWER = re.compile(
    r"\bno\s+(?:doubt|idea|clue|way|question|information|image|picture)\b|\bnot\s+(?:an?\s+)?(?:yes|no)\b",
    re.IGNORECASE,
)


def parse_yes_no(text: str) -> YesNo | None:
    """Return the answer when only one of the two words stands in the response.

    With both, the word that opens the response counts if punctuation sets it off and the other word is nowhere set
    off: "Yes, there is no leash" is yes; "No, wait, yes." and "yes or no" are None. So are "Not sure",
    "I have no idea" and "There isn't one": the benchmarks ask for the word, and a negation alone may deny anything.

    Source: ours. VLMEvalKit's rule for MME, without its judge model. The POPE script reads everything without
    "no" or "not" as yes, empty text included; the MME script looks for "no" within the first four letters, so
    "Know" and "Not sure" are no there.
    """
    text = _NO_ANSWER.sub(" ", text)
    words = _kinds(_WORD, text)
    if len(words) == 1:
        return words.pop()
    set_off = _kinds(_SET_OFF, text)
    if len(set_off) == 1 and _OPENING.match(text):
        return set_off.pop()
    return None


def _kinds(pattern: re.Pattern[str], text: str) -> set[YesNo]:
    return {"yes" if found.lower() == "yes" else "no" for found in pattern.findall(text)}
