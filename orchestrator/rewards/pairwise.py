"""A generative judge compares the samples of a prompt with each other: the reward is the share of comparisons won.

samples of a prompt ──► pairs, all or a ring ──► both orders ──► verdicts ──► r_i = mean win rate

A pair of equal texts is a draw and is not asked about. A verdict that cannot be read is nobody's; a sample without a
single readable one has no reward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol

from algorithms.figures import Figure
from algorithms.records import MediaRef
from orchestrator.cluster.microbatches import Deal, deal_prompts
from orchestrator.rewards.reward import Reward, failed_reward
from orchestrator.rewards.verdicts import parse_verdict
from orchestrator.run.cursor import sample_seed, shuffled_order
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Completion, GenerationRequest, Prompt, UnusablePrompt

PART = "pairwise"
COMPARISONS = "judge/comparisons"
FIGURES = (
    Figure(COMPARISONS, "questions to the judge of pairs in this step, equal ones asked once"),
    Figure("judge/unreadable_frac", "share of these whose verdict cannot be read", "Judge", "verdict not readable"),
    Figure(
        "judge/first_position_rate",
        "share of the readable verdicts that are for the response shown first; every pair is shown in both orders",
        "Judge",
        "chose the first",
    ),
)
"""Of steps with a judge of pairs on workers of the run's own."""


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


class JudgeWorkers(Protocol):
    """Workers of the role ``judge``, wherever they are."""

    def each(self, method: str, items: Sequence[Any], *, deadline_s: float, deal: Deal | None = None) -> list[Any]:
        """To ``write`` a verdict for each request, in the order given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseSettings:
    """How the judge is asked."""

    weight: float
    request: str
    """With ``{question}``, ``{first}`` and ``{second}``."""
    max_pairs: int
    max_new_tokens: int
    max_model_len: int
    shuffled: bool
    """Show it the images of other prompts."""
    seed: int
    deadline_s: float


class PairwiseJudge:
    """A frozen judge behind one call; greedy, so that equal questions get equal answers."""

    def __init__(
        self,
        workers: JudgeWorkers,
        encoder: PromptEncoder,
        settings: PairwiseSettings,
        *,
        strangers: Sequence[Prompt] = (),
    ) -> None:
        """
        Args:
            strangers: Prompts whose images a judge is shown that is to see others'.
        """
        self._workers, self._encoder, self._settings = workers, encoder, settings
        self._strangers: dict[int, list[tuple[MediaRef, ...]]] = {}
        for prompt in strangers:
            self._strangers.setdefault(len(prompt.media), []).append(prompt.media)

    def added(
        self, rewards: Sequence[Reward], prompts: Sequence[Prompt], texts: Sequence[str]
    ) -> tuple[list[Reward], dict[str, float]]:
        """Rewards with the weighted win rates added, and figures.

        Args:
            prompts: Of each sample; the samples of a prompt share its uid.
            texts: What each says.
        """
        groups: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            groups.setdefault(prompt.uid, []).append(index)
        own = {uid: prompts[members[0]] for uid, members in groups.items()}
        shown = {uid: self._estranged(prompt) for uid, prompt in own.items()} if self._settings.shuffled else own
        asked: dict[tuple[str, str, str], None] = {}
        votes: dict[str, list[tuple[int, int]]] = {}
        for number, (uid, members) in enumerate(groups.items()):
            pairs = pairs_of(len(members), most=self._settings.max_pairs, seed=self._settings.seed + number)
            votes[uid] = [pair for one, other in pairs for pair in ((one, other), (other, one))]
            for one, other in votes[uid]:
                first, second = texts[members[one]], texts[members[other]]
                if first != second:
                    asked[uid, first, second] = None
        verdicts = self._verdicts(shown, list(asked))
        joint = list(rewards)
        for uid, members in groups.items():
            shares = ((o, p, _share(uid, texts[members[o]], texts[members[p]], verdicts)) for o, p in votes[uid])
            known = [(one, other, share) for one, other, share in shares if share is not None]
            for member, rate in zip(members, win_rates(len(members), known), strict=True):
                joint[member] = self._joint(rewards[member], rate)
        return joint, _figures(verdicts)

    def _estranged(self, prompt: Prompt) -> Prompt:
        """The prompt with as many images of another, the same one every time."""
        among = self._strangers.get(len(prompt.media), [])
        start = sample_seed(self._settings.seed, prompt.uid, 0, 0)
        for offset in range(len(among)):
            if (media := among[(start + offset) % len(among)]) != prompt.media:
                return replace(prompt, media=media)
        return prompt

    def _joint(self, reward: Reward, rate: float | None) -> Reward:
        if reward.value is None:
            return reward
        if rate is None:
            return replace(failed_reward(f"{PART}: no verdict on it could be read"), parts=reward.parts)
        weight = self._settings.weight
        # A value that is no weighted sum of its parts does not become one by a part more.
        is_sum = bool(reward.weights) or (reward.value == 0.0 and not reward.parts)
        return replace(
            reward,
            value=reward.value + weight * rate,
            parts={**reward.parts, PART: rate},
            weights={**reward.weights, PART: weight} if is_sum else {},
        )

    def _verdicts(
        self, prompts: Mapping[str, Prompt], asked: Sequence[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], str | None]:
        """``"1"``, ``"2"`` or None for each question; one that does not fit the judge is not readable either."""
        requests: list[GenerationRequest] = []
        verdicts: dict[tuple[str, str, str], str | None] = dict.fromkeys(asked)
        for index, (uid, first, second) in enumerate(asked):
            try:
                encoded = self._encoder.encode(self._question(prompts[uid], first, second))
            except UnusablePrompt:
                continue
            if len(encoded.prompt_ids) + self._settings.max_new_tokens > self._settings.max_model_len:
                continue
            requests.append(
                GenerationRequest(
                    uid=uid, sample_index=index, engine_prompt_ids=encoded.engine_prompt_ids,
                    prompt_ids=encoded.prompt_ids, media=encoded.media, seed=0,
                    max_new_tokens=self._settings.max_new_tokens, temperature=0.0,
                )
            )  # fmt: skip
        written: list[Completion] = []
        if requests:
            written = self._workers.each("write", requests, deadline_s=self._settings.deadline_s, deal=deal_prompts)
        for completion in written:
            text = self._encoder.decode(completion.completion_ids)
            verdicts[asked[completion.sample_index]] = parse_verdict(text)
        return verdicts

    def _question(self, prompt: Prompt, first: str, second: str) -> Prompt:
        """The images, then the request. What the responses say stays words: nothing in them is a placeholder."""
        words = {"question": str(prompt.meta.get("question", "")), "first": first, "second": second}
        text = _filled(self._settings.request, words)
        content = [*({"type": "image"} for _ in prompt.media), {"type": "text", "text": text}]
        return replace(prompt, messages=({"role": "user", "content": content},), label=None, target=None)


def _filled(text: str, words: Mapping[str, str]) -> str:
    """Each name in braces replaced, in one pass: a response that holds one is not replaced again."""
    pieces, rest = [], text
    while rest:
        at, name = min(((rest.find(f"{{{n}}}"), n) for n in words if f"{{{n}}}" in rest), default=(-1, ""))
        if at < 0:
            break
        pieces += [rest[:at], words[name]]
        rest = rest[at + len(name) + 2 :]
    return "".join([*pieces, rest])


def _share(uid: str, first: str, second: str, verdicts: Mapping[tuple[str, str, str], str | None]) -> float | None:
    if first == second:
        return 0.5
    verdict = verdicts[uid, first, second]
    return None if verdict is None else float(verdict == "1")


def _figures(verdicts: Mapping[tuple[str, str, str], str | None]) -> dict[str, float]:
    readable = [verdict for verdict in verdicts.values() if verdict is not None]
    figures = {COMPARISONS: float(len(verdicts))}
    if verdicts:
        figures["judge/unreadable_frac"] = 1 - len(readable) / len(verdicts)
    if readable:
        figures["judge/first_position_rate"] = sum(v == "1" for v in readable) / len(readable)
    return figures
