"""A generative judge compares the samples of a prompt with each other: the reward is the share of comparisons won.

samples of a prompt ──► pairs, all or a ring ──► both orders ──► verdicts ──► r_i = mean win rate

A pair of equal texts is a draw and is not asked about. A verdict that cannot be read is nobody's; a sample without a
single readable one has no reward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from algorithms.figures import Figure, Mean, Sum, Tallies
from orchestrator.data.verdicts import parse_verdict
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
)
from orchestrator.rewards.reward import Reward, failed_reward, with_parts
from orchestrator.run.cursor import shuffled_order
from workers.types import Prompt

PART = "pairwise"
_COMPARISONS, _FIRST = "judge/comparisons", "judge/first_position_rate"
FIGURES = (
    Figure(_COMPARISONS, "questions to the judge of pairs in this step, equal ones asked once"),
    Figure(
        _FIRST,
        "share of its readable verdicts that are for the response shown first; every pair is shown in both orders",
        "Judge",
        "chose the first",
    ),
)
"""Of steps with a judge of pairs, beside those of any judge that writes."""
_WEAKER = "I do not know."


def pairs_of(count: int, *, most: int, seed: int) -> list[tuple[int, int]]:
    """Which of ``count`` samples are compared: all pairs, or a ring in a seeded order where that would be too many.

    In a ring each sample is compared with two others; it has ``count`` pairs, be ``most`` smaller or not.
    """
    pairs = list(combinations(range(count), 2))
    if len(pairs) <= most:
        return pairs
    order = shuffled_order(count, seed=seed, epoch=0)
    return [(order[i], order[(i + 1) % count]) for i in range(count)]


def win_rates(count: int, votes: Sequence[tuple[int, int, float]]) -> list[float | None]:
    """Mean over each sample's comparisons; None of one without any.

    Args:
        votes: Two samples, and what the first got of the vote: 1, 0, or 0.5 in a draw.
    """
    got: list[list[float]] = [[] for _ in range(count)]
    for one, other, share in votes:
        got[one].append(share)
        got[other].append(1.0 - share)
    return [sum(shares) / len(shares) if shares else None for shares in got]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseSettings:
    """How the judge is asked."""

    weight: float
    request: str
    """With ``{question}``, ``{first}`` and ``{second}``."""
    max_pairs: int
    seed: int


class PairwiseJudge:
    """Asks a judge about pairs of a prompt's samples."""

    def __init__(self, writer: Writer, pictures: Pictures, settings: PairwiseSettings) -> None:
        self._writer, self._pictures, self._settings = writer, pictures, settings

    def added(
        self, rewards: Sequence[Reward], prompts: Sequence[Prompt], texts: Sequence[str]
    ) -> tuple[list[Reward], Tallies]:
        """Rewards with the weighted win rates added; see ``SampleJudge``."""
        groups: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            groups.setdefault(prompt.uid, []).append(index)
        pairs: dict[str, list[tuple[int, int]]] = {}
        asked: dict[tuple[int, int], Question] = {}
        for number, (uid, members) in enumerate(groups.items()):
            met = pairs_of(len(members), most=self._settings.max_pairs, seed=self._settings.seed + number)
            pairs[uid] = [pair for one, other in met for pair in ((one, other), (other, one))]
            for one, other in pairs[uid]:
                first, second = members[one], members[other]
                if texts[first] != texts[second]:
                    asked[first, second] = self._question(prompts[members[0]], texts[first], texts[second])
        answers = asked_once(self._writer, list(asked.values()))
        joint = list(rewards)
        for uid, members in groups.items():
            of_group = [(o, p, asked.get((members[o], members[p]))) for o, p in pairs[uid]]
            votes = [(o, p, share) for o, p, q in of_group if (share := _share(q, answers)) is not None]
            for number, rate in enumerate(win_rates(len(members), votes)):
                about = [answers[q] for o, p, q in of_group if number in (o, p) and q is not None]
                joint[members[number]] = self._joint(rewards[members[number]], rate, about)
        return joint, _tallies(answers)

    def fault(self, prompts: Sequence[Prompt]) -> str | None:
        """See ``SampleJudge``."""
        questions = [self._question(prompt, prompt.label or "yes", _WEAKER) for prompt in prompts]
        return first_fault(self._writer.write(questions), lambda text: parse_verdict(text) is not None)

    def _joint(self, reward: Reward, rate: float | None, about: Sequence[Answer]) -> Reward:
        if reward.value is None:
            return reward
        if rate is None:
            fault = next((answer.fault for answer in about if answer.text is None), None)
            told = "no verdict on it could be read" if fault is None else f"no verdict on it: {fault}"
            return failed_reward(f"{PART}: {told}", parts=reward.parts)
        return with_parts(reward, {PART: rate}, {PART: self._settings.weight})

    def _question(self, prompt: Prompt, first: str, second: str) -> Question:
        words = {"question": question_of(prompt), "first": first, "second": second}
        return Question(prompt.uid, self._pictures.of(prompt), filled(self._settings.request, words))


def _share(question: Question | None, answers: Mapping[Question, Answer]) -> float | None:
    if question is None:  # equal texts
        return 0.5
    verdict = parse_verdict(answers[question].text or "")
    return None if verdict is None else float(verdict == "1")


def _tallies(answers: Mapping[Question, Answer]) -> Tallies:
    verdicts = [v for a in answers.values() if (v := parse_verdict(a.text or "")) is not None]
    return {
        _COMPARISONS: Sum(float(len(answers))),
        **tallied(answers, len(verdicts)),
        **({_FIRST: Mean(float(sum(v == "1" for v in verdicts)), float(len(verdicts)))} if verdicts else {}),
    }
