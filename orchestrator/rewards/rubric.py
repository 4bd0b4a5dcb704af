"""A generative judge by the user's own rubric: a number for each completion, or one for each of several criteria.

rubric, filled in ──► the judge ──► numbers in their range ──► parts: 0 at the lowest, 1 at the highest ──► weighted sum

A verdict that is not in the form that was asked for is a failed reward with its reason, never a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from algorithms.figures import Figure, Mean, Sum, Tallies
from orchestrator.config.judges import RUBRIC, Criterion
from orchestrator.data.verdicts import parse_scores
from orchestrator.rewards.asking import (
    Answer,
    Pictures,
    Question,
    Writer,
    asked_once,
    filled,
    first_fault,
    question_of,
    tallied,
    unreadable,
)
from orchestrator.rewards.reward import Reward, failed_reward, with_parts
from workers.types import Prompt

_RATINGS, _SCORE, _SPREAD = "judge/ratings", "judge/score_mean", "judge/score_spread"
FIGURES = (
    Figure(_RATINGS, "questions by the rubric to the judge in this step, equal ones asked once"),
    Figure(
        _SCORE, "mean number that the judge gave by the rubric, on the scale of reward.judge_scale", "Judge's numbers"
    ),
    Figure(
        _SPREAD,
        "standard deviation of these among the samples of a prompt, mean over prompts: at 0 the judge tells no sample "
        "from another, and nothing is learned from it",
        "Judge's numbers",
        "spread in a prompt",
    ),
)
"""Of steps with a rubric, beside those of any judge that writes."""
_THINK = "Reason within <think> and </think> first. Then write within <answer> and </answer> "
_FORM = "<answer>"


@dataclass(frozen=True, slots=True, kw_only=True)
class RubricSettings:
    """How the judge is asked."""

    weight: float
    rubric: str
    """With ``{question}``, ``{response}``, ``{label}`` and ``{criteria}``, each where it is wanted."""
    criteria: tuple[Criterion, ...]
    """None is one number."""
    low: float
    high: float

    @property
    def names(self) -> tuple[str, ...]:
        """Of the criteria."""
        return tuple(criterion.name for criterion in self.criteria)

    @property
    def weights(self) -> dict[str, float]:
        """What each part counts in the reward."""
        if not self.criteria:
            return {RUBRIC: self.weight}
        return {criterion.part: self.weight * criterion.weight for criterion in self.criteria}


class RubricJudge:
    """Asks a judge about one completion at a time."""

    def __init__(self, writer: Writer, pictures: Pictures, settings: RubricSettings) -> None:
        self._writer, self._pictures, self._settings = writer, pictures, settings
        self._rubric = rubric_text(settings)

    def added(
        self, rewards: Sequence[Reward], prompts: Sequence[Prompt], texts: Sequence[str]
    ) -> tuple[list[Reward], Tallies]:
        """Rewards with the weighted numbers added; what has no reward is not asked about. See ``SampleJudge``."""
        asked = {
            index: self._question(prompts[index], texts[index])
            for index, reward in enumerate(rewards)
            if reward.value is not None
        }
        answers = asked_once(self._writer, list(asked.values()))
        numbers = {question: self._read(answer.text or "") for question, answer in answers.items()}
        joint = list(rewards)
        by_prompt: dict[str, list[float]] = {}
        for index, question in asked.items():
            found = numbers[question]
            joint[index] = self._joint(rewards[index], found, answers[question])
            if found is not None:
                by_prompt.setdefault(question.uid, []).append(fmean(found.values()))
        readable = sum(found is not None for found in numbers.values())
        return joint, {_RATINGS: Sum(float(len(answers))), **tallied(answers, readable), **_tallies(by_prompt)}

    def fault(self, prompts: Sequence[Prompt]) -> str | None:
        """See ``SampleJudge``."""
        questions = [self._question(prompt, prompt.label or "yes") for prompt in prompts]
        return first_fault(self._writer.write(questions), lambda text: self._read(text) is not None)

    def _joint(self, reward: Reward, numbers: Mapping[str, float] | None, answer: Answer) -> Reward:
        if numbers is None:
            return failed_reward(f"{RUBRIC}: {unreadable(answer)}", parts=reward.parts)
        low, high, weights = self._settings.low, self._settings.high, self._settings.weights
        shares = [(numbers[name] - low) / (high - low) for name in self._settings.names or ("",)]
        return with_parts(reward, dict(zip(weights, shares, strict=True)), weights)

    def _read(self, text: str) -> dict[str, float] | None:
        return parse_scores(text, self._settings.names, low=self._settings.low, high=self._settings.high)

    def _question(self, prompt: Prompt, response: str) -> Question:
        words = {
            "question": question_of(prompt),
            "response": response,
            "label": prompt.label or "",
        }
        return Question(prompt.uid, self._pictures.of(prompt), filled(self._rubric, words))


def rubric_text(settings: RubricSettings) -> str:
    """The rubric with its criteria, and below it the form of a verdict unless the rubric says one itself."""
    listed = "\n".join(f"{c.name}: {c.words}" if c.words else c.name for c in settings.criteria)
    text = filled(settings.rubric, {"criteria": listed}).rstrip()
    if _FORM in settings.rubric:
        return text
    between = f"from {settings.low:g} (worst) to {settings.high:g} (best)"
    if not settings.criteria:
        return f"{text}\n\n{_THINK}one number {between} and nothing else."
    lines = "\n".join(f"{name}: NUMBER" for name in settings.names)
    return f"{text}\n\n{_THINK}a line for each criterion, with a number {between}, and nothing else:\n{lines}"


def _tallies(by_prompt: Mapping[str, Sequence[float]]) -> Tallies:
    every = [number for numbers in by_prompt.values() for number in numbers]
    spreads = [pstdev(numbers) for numbers in by_prompt.values() if len(numbers) > 1]
    found: Tallies = {}
    for name, numbers in ((_SCORE, every), (_SPREAD, spreads)):
        if numbers:
            found[name] = Mean(sum(numbers), float(len(numbers)))
    return found
