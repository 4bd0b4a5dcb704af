"""The parts of a reward: a number for one thing in a response, by our rules (strict) or by the release's (compat).

A part is one record, here or in a file of its own, and one line in the registry of ``rulebooks.py``: replies, metrics,
rollout files and reports have it under its name there. What the release's rules leave out are defects and no rules: an
exception scored as a right answer, and the nearest prompt by edit distance instead of the item's own label. Symbolic
equality is replaced by exact fractions. Source of compat: yfzhang114/r1_reward@3693413,
openrlhf/models/remote_rm/math_verifier_mllm.py.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from remote_rm.schema import RewardItem


@dataclass(frozen=True, slots=True)
class Question:
    """What the judge is to compare; its verdict is the part: 1 consistent, −1 inconsistent, 0 where it has none.

    It never sees the question, the image or the candidate responses: it compares a conclusion with a choice.
    """

    tail: str
    """The end of the reasoning."""
    answer: str
    """The answer as a sentence."""


class Unscorable(Exception):
    """The item can have no reward, and why."""


Rule = Callable[[RewardItem], float | Question | None]
"""An item's number or a question about it; None where there is nothing to say.

Raises Unscorable where nobody could.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a reward."""

    strict: Rule
    compat: Rule | None = None
    """None is the same rule."""
    weight: float = 0.0
    """What it adds to a reward besides what the rulebook's formula makes of it."""


# -- format ----------------------------------------------------------------------------------------------------------

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_STRICT_FORMAT = re.compile(r"<think>(.*)</think>\s*<answer>(.*)</answer>", re.DOTALL)
_RELEASED_FORMAT = re.compile(r"<think>.*?</think><answer>.*?</answer>\n?", re.DOTALL)


def format_score(response: str) -> float:
    """1.0 for exactly ``<think>…</think>`` then ``<answer>…</answer>``, and nothing else but white space, else 0.0.

    Stricter than the released pattern where that one pays for defects (repeated closing tags, empty blocks) and laxer
    in one place: white space may stand between the blocks, where every chat model puts a line break.
    """
    if any(response.count(tag) != 1 for tag in _TAGS):
        return 0.0
    match = _STRICT_FORMAT.fullmatch(response.strip())
    return 1.0 if match is not None and all(block.strip() for block in match.groups()) else 0.0


def released_format(response: str) -> float:
    """1.0 for the released pattern: blocks back to back, one of each opening tag; closing tags may repeat."""
    once = response.count("<think>") == 1 and response.count("<answer>") == 1
    return 1.0 if once and _RELEASED_FORMAT.fullmatch(response) else 0.0


FORMAT = Part(
    strict=lambda item: format_score(item.response),
    compat=lambda item: released_format(item.response),
)

# -- accuracy --------------------------------------------------------------------------------------------------------

_ONLY_ANSWER = re.compile(r"<answer>(.*)</answer>", re.DOTALL)
_LABEL = re.compile(r"[12]")
_SHOWN_LABEL = 80
_NUMBER = re.compile(
    r"\\d?frac\{(?P<over>-?[0-9]{1,30})\}\{(?P<under>[0-9]{1,30})\}"
    r"|(?P<top>-?[0-9]{1,30}(?:\.[0-9]{1,30})?)(?:\s*/\s*(?P<bottom>[0-9]{1,30}))?"
)


def parse_answer(response: str) -> str | None:
    """Return ``"1"`` or ``"2"``, or None when the response holds no single clear answer."""
    if response.count("<answer>") != 1 or response.count("</answer>") != 1:
        return None
    block = _ONLY_ANSWER.search(response)
    answer = block[1].strip() if block is not None else ""
    return answer if _LABEL.fullmatch(answer) else None


def accuracy_score(response: str, label: str) -> float:
    """1.0 when the parsed answer is the label, else 0.0."""
    return 1.0 if parse_answer(response) == label else 0.0


def released_accuracy(response: str, golds: Sequence[str]) -> float:
    """1.0 when the last number of the answer, or of an untagged response, equals that of any gold."""
    value = _last_number(_answer_or_all(response))
    return 1.0 if value is not None and value in {_last_number(_answer_or_all(gold)) for gold in golds} else 0.0


def _answer_or_all(text: str) -> str:
    """The first answer block, or all; found in one pass, as a model may open thousands that it does not close."""
    _, opened, rest = text.partition("<answer>")
    answer, closed, _ = rest.partition("</answer>")
    return answer if opened and closed else text


def _last_number(text: str) -> Fraction | None:
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    over, under = found["over"] or found["top"], found["under"] or found["bottom"] or "1"
    return Fraction(over) / int(under) if int(under) != 0 else None


def _label_of(item: RewardItem) -> str:
    if item.label is None:
        raise Unscorable("the item has no label")
    return item.label


def _preferred(item: RewardItem) -> str:
    label = _label_of(item)
    if not _LABEL.fullmatch(label):
        raise Unscorable(f"the label {label[:_SHOWN_LABEL]!r} is neither 1 nor 2")
    return label


ACCURACY = Part(
    strict=lambda item: accuracy_score(item.response, _preferred(item)),
    compat=lambda item: released_accuracy(item.response, (_label_of(item),)),
)

# -- consistency -----------------------------------------------------------------------------------------------------

_TAIL_LINES = 3
"""Lines of reasoning the judge reads; its conclusion is at the end."""


def reasoning_of(response: str) -> str:
    """What stands before ``<answer>``, without the think tags."""
    before, _, _ = response.partition("<answer>")
    return before.replace("<think>", "").replace("</think>", "").strip()


def tail(reasoning: str) -> str:
    """The last lines that are not blank."""
    lines = [line.strip() for line in reasoning.splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL_LINES:])


def answer_sentence(answer: str) -> str:
    """``1`` and ``2`` as a statement; anything else as it is."""
    answer = answer.strip()
    return f"Response {answer} is better." if answer in ("1", "2") else answer


def strict_question(response: str) -> Question:
    """The end of the reasoning without its tags and blank lines, and the single clear answer."""
    return Question(tail(reasoning_of(response)), answer_sentence(parse_answer(response) or ""))


def released_question(response: str) -> Question:
    """The two texts the released judge prompt held: the last three lines with their tags, and the answer."""
    lines = response.split("<answer>")[0].strip().split("\n")
    answer = _answer_or_all(response).strip()
    if re.fullmatch(r"[+-]?[0-9]+", answer):
        sentences = {1: "response 1 is better", 2: "response 2 is better"}
        answer = sentences.get(int(answer[:30]), "two response are the same")
    return Question(";".join(lines[-3:]), answer)


CONSISTENCY = Part(
    strict=lambda item: strict_question(item.response),
    compat=lambda item: released_question(item.response),
)
