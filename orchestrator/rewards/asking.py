"""A judge that writes: questions in, texts out, whoever answers them and whatever is read from the texts.

pairwise.py  which of two is better ─┐                                 ┌─ workers_writer.py  workers of the run
rubric.py    how good one is ────────┴─ questions ──► Writer ──► texts ┴─ endpoint.py        OpenAI-compatible
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from algorithms.figures import Figure, Mean, Tallies
from algorithms.records import MediaRef
from orchestrator.rewards.reward import Reward
from orchestrator.run.cursor import sample_seed
from workers.types import Prompt

UNREADABLE, UNANSWERED = "judge/unreadable_frac", "judge/unanswered_frac"
FIGURES = (
    Figure(
        UNREADABLE,
        "share of the questions to the judge without a verdict that can be read",
        "Judge",
        "verdict not readable",
    ),
    Figure(
        UNANSWERED,
        "share of them without an answer: none in time, refused, or too long to be asked",
        "Judge",
        "no answer",
    ),
)
_SHOWN = 120
_PLACEHOLDER = re.compile("<(image|video)>")
_AT_THE_ENDS = re.compile(r"\A(?:\s*<(?:image|video)>\s*)+|(?:\s*<(?:image|video)>\s*)+\Z")
Shown = Literal["own", "shuffled", "none"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked once: equal questions are one."""

    uid: str
    """Of the prompt that it is about."""
    media: tuple[MediaRef, ...]
    """Shown above the text, unless ``before`` says otherwise."""
    text: str
    before: tuple[str, ...] = ()
    """Words before each image, where images stand between words; the text is behind the last of them."""
    temperature: float = 0.0
    seed: int | None = None
    """Of a draw at that temperature."""

    @property
    def content(self) -> list[dict[str, str]]:
        """Parts of the user's turn, an image without its pixels."""
        parts = list[dict[str, str]]()
        for words in self.before or ("",) * len(self.media):
            parts += [{"type": "text", "text": words}] * bool(words) + [{"type": "image"}]
        return [*parts, *[{"type": "text", "text": self.text}] * bool(self.text or not parts)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the judge wrote, or why it wrote nothing."""

    text: str | None
    fault: str = ""
    finish_reason: str = field(default="", compare=False)
    """As an endpoint says it."""
    is_refused: bool = False
    """Whether the fault is of this question alone: whoever answers is there, and will not have it."""


class Writer(Protocol):
    """Whoever answers; the same to equal questions, as far as it can."""

    def write(self, questions: Sequence[Question]) -> list[Answer]:
        """An answer to each question, in the order given; a question that has none says why, and nothing is raised."""
        ...


class SampleJudge(Protocol):
    """Who says how good the samples of a step are, beside the reward service."""

    def added(
        self, rewards: Sequence[Reward], prompts: Sequence[Prompt], texts: Sequence[str]
    ) -> tuple[list[Reward], Tallies]:
        """Rewards with the judge's parts added, and shares of its figures.

        Args:
            prompts: Of each sample; the samples of a prompt share its uid.
            texts: What each says.
        """
        ...

    def fault(self, prompts: Sequence[Prompt]) -> str | None:
        """Ask about these prompts, before there are samples; why no answer can be read, None where one can."""
        ...


class Pictures:
    """What a judge is shown of a prompt's images."""

    def __init__(self, shown: Shown, *, among: Sequence[Prompt] = (), seed: int = 0) -> None:
        """
        Args:
            among: Prompts whose images stand in for each other's, where ``shown`` is ``shuffled``.
        """
        self._shown, self._seed = shown, seed
        self._strangers: dict[int, list[tuple[MediaRef, ...]]] = {}
        for prompt in among if shown == "shuffled" else ():
            self._strangers.setdefault(len(prompt.media), []).append(prompt.media)

    def of(self, prompt: Prompt) -> tuple[MediaRef, ...]:
        """Its own; or as many of another, the same one every time; or none."""
        if self._shown == "none":
            return ()
        among = self._strangers.get(len(prompt.media), [])
        start = sample_seed(self._seed, prompt.uid, 0, 0)
        for offset in range(len(among)):
            if (media := among[(start + offset) % len(among)]) != prompt.media:
                return media
        return prompt.media


def asked_once(writer: Writer, questions: Sequence[Question]) -> dict[Question, Answer]:
    """Answers by question, of which equal ones are asked once."""
    different = list(dict.fromkeys(questions))
    return dict(zip(different, writer.write(different), strict=True)) if different else {}


def tallied(answers: Mapping[Question, Answer], readable: int) -> Tallies:
    """Shares of ``FIGURES``; nothing where nothing was asked."""
    count = len(answers)
    unanswered = sum(answer.text is None for answer in answers.values())
    return {UNREADABLE: Mean(count - readable, count), UNANSWERED: Mean(unanswered, count)} if count else {}


def first_fault(answers: Sequence[Answer], is_readable: Callable[[str], bool]) -> str | None:
    """Why nothing can be read from any of these; None where something can, or nothing was asked."""
    if not answers or any(answer.text is not None and is_readable(answer.text) for answer in answers):
        return None
    return next((answer.fault for answer in answers if answer.text is None), None) or unreadable(answers[0])


def unreadable(answer: Answer) -> str:
    """What stands in place of a verdict, for people."""
    if answer.text is None:
        return answer.fault
    # A verdict stands at the end.
    words = " ".join(answer.text.split())
    return f"no verdict can be read in {words if len(words) <= _SHOWN else '... ' + words[-_SHOWN:]!r}"


def outage(answers: Sequence[Answer]) -> str | None:
    """Why none of these has a text; None where one has, or where each is refused for itself."""
    if any(answer.text is not None for answer in answers):
        return None
    return next((answer.fault for answer in answers if not answer.is_refused), None)


def question_of(prompt: Prompt) -> str:
    """What the prompt asks, in words: its images stand above them, and are named where they stood between words."""
    text = str(prompt.meta.get("question", "")) or _last_words(prompt)
    return _PLACEHOLDER.sub(r"[\1]", _AT_THE_ENDS.sub("", text))


def _last_words(prompt: Prompt) -> str:
    content = prompt.messages[-1]["content"] if prompt.messages else ""
    return content if isinstance(content, str) else " ".join(p["text"] for p in content if p["type"] == "text")


def filled(text: str, words: Mapping[str, str]) -> str:
    """Each name in braces replaced, in one pass: a response that holds one is not replaced again."""
    pieces, rest = [], text
    while rest:
        at, name = min(((rest.find(f"{{{n}}}"), n) for n in words if f"{{{n}}}" in rest), default=(-1, ""))
        if at < 0:
            break
        pieces += [rest[:at], words[name]]
        rest = rest[at + len(name) + 2 :]
    return "".join([*pieces, rest])
