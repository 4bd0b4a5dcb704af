"""Whether an answer is the label, whatever the task: the truth that rewards are measured against."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from orchestrator.data.verdicts import parse_verdict
from workers.types import Prompt

# The last that is opened: a model that opens it again and again before it closes it still says one thing.
_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL)
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NUMBER = re.compile(r"[-+]?(?:\d{1,30}(?:\.\d{1,30})?|\.\d{1,30})(?:/\d{1,30})?")


def is_judging(prompts: Sequence[Prompt]) -> bool:
    """Whether they ask for verdicts: every label is one of the two responses."""
    return all(prompt.label in ("1", "2") for prompt in prompts)


def readable_answer(text: str, *, judging: bool) -> str | None:
    """What a response comes to; None where it is not plain.

    Of a judgement its verdict; else what stands in the last ``<answer>…</answer>``, else in the last ``\\boxed{…}``,
    else behind the thinking.
    """
    if judging:
        return parse_verdict(text)
    tagged = _TAGGED.findall(text)
    text = tagged[-1] if tagged else text
    boxed = _BOXED.findall(text)
    answer = boxed[-1] if boxed else text if tagged else _THOUGHT.sub("", text, count=1)
    return _plain(answer) or None


def is_right(answer: str | None, label: str, *, judging: bool) -> bool:
    """Whether a readable answer is the label: the same number where both are numbers, else the same words."""
    if answer is None or judging:
        return answer == label
    wanted = readable_answer(label, judging=False) or ""
    one, other = _value(answer), _value(wanted)
    return answer.casefold() == wanted.casefold() if one is None or other is None else one == other


@dataclass(frozen=True, slots=True, kw_only=True)
class AtK:
    """Several samples of each held-out prompt; shares in [0, 1]."""

    k: int
    mean: float
    """Of the samples that are right."""
    any: float
    """Of the prompts with a right sample: pass@k."""
    majority: float
    """Of the prompts whose most frequent answer is right; of equally frequent ones the earlier sample's counts."""


def at_k(answers: Sequence[Sequence[str | None]], labels: Sequence[str], *, judging: bool) -> AtK:
    """Figures of k samples a prompt, prompt by prompt."""
    right = [
        [is_right(answer, label, judging=judging) for answer in of_prompt]
        for of_prompt, label in zip(answers, labels, strict=True)
    ]
    chosen = [_most_frequent(of_prompt) for of_prompt in answers]
    voted = [is_right(answer, label, judging=judging) for answer, label in zip(chosen, labels, strict=True)]
    count, k = len(labels), len(answers[0])
    return AtK(
        k=k,
        mean=sum(map(sum, right)) / (count * k),
        any=sum(map(any, right)) / count,
        majority=sum(voted) / count,
    )


def _most_frequent(answers: Sequence[str | None]) -> str | None:
    # A vote for nothing readable is none; Counter keeps the order in which answers came first.
    counted = Counter(answer for answer in answers if answer is not None).most_common(1)
    return counted[0][0] if counted else None


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").strip()


def _value(text: str) -> Fraction | None:
    bare = text.replace("$", "").strip()
    bare = bare.replace(",", "") if _THOUSANDS.fullmatch(bare) else bare
    if not _NUMBER.fullmatch(bare):
        return None
    top, _, bottom = bare.partition("/")
    return Fraction(top) / int(bottom or 1) if int(bottom or 1) else None
