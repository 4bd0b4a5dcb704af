"""A judge of pairs: who is compared with whom, what a win is worth, and what becomes of verdicts that are none."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithms.figures import values
from algorithms.records import MediaRef
from orchestrator.config import load_config
from orchestrator.errors import RefusedInput
from orchestrator.rewards.asking import Answer, Pictures, Question
from orchestrator.rewards.pairwise import PairwiseJudge, PairwiseSettings, pairs_of, win_rates
from orchestrator.rewards.reward import Reward, failed_reward
from orchestrator.rewards.workers_writer import WorkersWriter
from workers.types import Completion, EncodedPrompt, GenerationRequest, Prompt

_SETTINGS = PairwiseSettings(weight=2.0, request="{question} A {first} B {second}", max_pairs=16, seed=0)


@given(count=st.integers(2, 12), most=st.integers(1, 70), seed=st.integers(0, 99))
def test_all_pairs_or_a_ring_in_which_everybody_meets_two(count: int, most: int, seed: int) -> None:
    pairs = pairs_of(count, most=most, seed=seed)
    whole = count * (count - 1) // 2
    assert pairs == pairs_of(count, most=most, seed=seed)
    met = Counter(member for pair in pairs for member in pair)
    if whole <= most:
        assert {frozenset(pair) for pair in pairs} == {frozenset((a, b)) for a in range(count) for b in range(a)}
    else:
        assert met == dict.fromkeys(range(count), 2)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0])), max_size=30))
def test_every_vote_is_shared_out_whole(votes: list[tuple[int, int, float]]) -> None:
    votes = [vote for vote in votes if vote[0] != vote[1]]
    rates = win_rates(5, votes)
    met = Counter(member for one, other, _ in votes for member in (one, other))
    assert sum((rate or 0.0) * met[member] for member, rate in enumerate(rates)) == pytest.approx(len(votes))
    assert [rate is None for rate in rates] == [met[member] == 0 for member in range(5)]


class _Opinion:
    """A judge of a fixed opinion on every two texts, and of none on some."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def write(self, questions: Sequence[Question]) -> list[Answer]:
        return [Answer(f"<answer>{self._verdict(q)}</answer>") for q in questions]

    def _verdict(self, question: Question) -> str:
        first, second = question.text.partition(" A ")[2].split(" B ")
        said = Random(f"{self._seed} {sorted((first, second))}").choice(["better", "worse", "none"])
        return {"none": "?", "better": "12"[first > second], "worse": "12"[first < second]}[said]


@given(texts=st.lists(st.sampled_from("abcdef"), min_size=2, max_size=6), seed=st.integers(0, 999), data=st.data())
def test_win_rates_do_not_depend_on_the_order_of_samples_and_sum_to_the_draw(
    texts: list[str], seed: int, data: st.DataObject
) -> None:
    """A judge that minds no order: shuffled samples get shuffled rates, and what one wins the other loses."""
    order = data.draw(st.permutations(range(len(texts))))
    judge = PairwiseJudge(_Opinion(seed), Pictures("own"), _SETTINGS)

    def rates(of: Sequence[str]) -> list[float | None]:
        prompts = [Prompt(uid="p", messages=(), media=())] * len(of)
        found, _ = judge.added([Reward(value=0.0, status="scored")] * len(of), prompts, of)
        return [reward.parts.get("pairwise") for reward in found]

    plain = rates(texts)
    assert rates([texts[i] for i in order]) == [
        plain[i] if plain[i] is None else pytest.approx(plain[i]) for i in order
    ]
    if len(texts) == 2 and None not in plain:
        assert sum(rate or 0.0 for rate in plain) == 1.0


class _Encoder:
    """Ids are numbers of the texts it has seen."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        self.texts.append(prompt.messages[0]["content"][-1]["text"])
        ids = (len(self.texts) - 1,) * (5 if "long" not in self.texts[-1] else 95)
        return EncodedPrompt(uid=prompt.uid, engine_prompt_ids=ids, prompt_ids=ids, media=prompt.media)

    def decode(self, ids: np.ndarray) -> str:
        return _SAYS[int(ids[0])]


_SAYS = {0: "no idea", 1: "<answer>1</answer>", 2: "<answer>2</answer>"}


class _Workers:
    def __init__(self, encoder: _Encoder, verdict: Callable[[str, GenerationRequest], int]) -> None:
        self.encoder, self.verdict, self.asked = encoder, verdict, list[GenerationRequest]()

    def each(self, method: str, items: Sequence[Any], *, deadline_s: float, deal: Any = None) -> list[Any]:
        assert method == "write"
        self.asked += items
        return [
            Completion(
                uid=r.uid, sample_index=r.sample_index, policy_version=0, engine="judge", finish_reason="stop",
                completion_ids=np.array([self.verdict(self.encoder.texts[r.prompt_ids[0]], r)], np.int32),
                rollout_logprobs=np.zeros(1, np.float32),
            )
            for r in items
        ]  # fmt: skip


def _best(question: str, _: GenerationRequest) -> int:
    """The longer of two responses is better."""
    first, second = question.partition(" A ")[2].split(" B ")
    return 1 if len(first) > len(second) else 2


def _image(name: str) -> MediaRef:
    return MediaRef(sha256=name * 64, path=f"/{name}", width=1, height=1)


def _judge(workers: _Workers, pictures: Pictures | None = None) -> PairwiseJudge:
    encoder: Any = workers.encoder
    writer = WorkersWriter(workers, encoder, max_new_tokens=8, max_model_len=100, deadline_s=1.0)
    return PairwiseJudge(writer, pictures or Pictures("own"), _SETTINGS)


def _added(
    texts: Sequence[str], verdict: Callable[[str, GenerationRequest], int] = _best, *, shuffled: bool = False
) -> tuple[list[Reward], dict[str, float], _Workers]:
    """Two prompts, the samples of the second like those of the first."""
    encoder = _Encoder()
    workers = _Workers(encoder, verdict)
    prompts = [
        Prompt(uid=uid, messages=(), media=(_image(uid),), meta={"question": "which ?"})
        for uid in ("a", "b")
        for _ in texts
    ]
    judge = _judge(workers, Pictures("shuffled" if shuffled else "own", among=prompts))
    rewards = [Reward(value=1.0, parts={"f": 1.0}, weights={"f": 1.0}, status="scored") for _ in prompts]
    found, figures = judge.added(rewards, prompts, [*texts, *texts])
    return found, values(figures), workers


def test_a_win_rate_is_added_as_a_part_with_its_weight() -> None:
    found, figures, _ = _added(["x", "xxx", "xx"])
    assert [reward.parts["pairwise"] for reward in found] == [0.0, 1.0, 0.5] * 2
    assert [reward.value for reward in found] == [1.0, 3.0, 2.0] * 2
    assert found[0].weights == {"f": 1.0, "pairwise": 2.0}
    assert figures == {
        "judge/comparisons": 12.0,
        "judge/unreadable_frac": 0.0,
        "judge/unanswered_frac": 0.0,
        "judge/first_position_rate": 0.5,
    }


def test_a_judge_that_always_says_the_first_moves_nobody() -> None:
    found, figures, _ = _added(["x", "xxx", "xx"], lambda *_: 1)
    assert {reward.parts["pairwise"] for reward in found} == {0.5}
    assert figures["judge/first_position_rate"] == 1.0


def test_equal_texts_draw_and_equal_questions_are_asked_once() -> None:
    found, _, workers = _added(["x", "xx", "x"])
    assert [reward.parts["pairwise"] for reward in found[:3]] == [0.25, 1.0, 0.25]
    assert len(workers.asked) == 4, "one pair of texts in both orders, for two prompts"
    assert len({(r.uid, r.sample_index) for r in workers.asked}) == 4


def test_an_unreadable_verdict_is_nobodys_and_who_has_no_other_has_no_reward() -> None:
    def verdict(question: str, request: GenerationRequest) -> int:
        return 0 if "odd" in question else _best(question, request)

    found, figures, _ = _added(["x", "odd", "xx"], verdict)
    assert [reward.parts.get("pairwise") for reward in found[:3]] == [0.0, None, 1.0]
    assert (found[1].status, found[1].detail) == ("failed", "pairwise: no verdict on it could be read")
    assert figures["judge/unreadable_frac"] == pytest.approx(8 / 12)


def test_a_question_that_is_too_long_for_the_judge_is_not_asked() -> None:
    found, _, workers = _added(["x", "long"])
    assert not workers.asked
    assert {(reward.status, reward.detail) for reward in found} == {
        (
            "failed",
            "pairwise: no verdict on it: it cannot be asked: 95 tokens and an answer of 8 are more than 100",
        )
    }


def test_a_response_without_a_reward_stays_without() -> None:
    judge = _judge(_Workers(_Encoder(), _best))
    prompts = [Prompt(uid="a", messages=(), media=())] * 2
    found, _ = judge.added([failed_reward("gone"), Reward(value=0.0, status="scored")], prompts, ["x", "xx"])
    assert (found[0].value, found[0].detail, found[1].value) == (None, "gone", 2.0)


def test_words_of_a_response_are_not_filled_in_again() -> None:
    _, _, workers = _added(["{second}", "{first} and more"])
    assert workers.encoder.texts[0] == "which ? A {second} B {first} and more"


def test_the_control_shows_the_judge_the_pictures_of_others() -> None:
    own, others = (_added(["x", "xx"], shuffled=flag)[2].asked for flag in (False, True))
    assert all(request.media == (_image(request.uid),) for request in own)
    assert {request.uid: request.media[0].path for request in others} in (
        {"a": "/b", "b": "/a"},
        {"a": "/a", "b": "/b"},
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--reward.functions", "pairwise"], "needs reward.judge_path or reward.judge_url"),
        (["--reward.judge_path", "m"], 'reward.functions has no "pairwise" or "judge"'),
        (["--reward.functions", "pairwise", "pairwise?weight=2", "--reward.judge_path", "m"], '"pairwise" twice'),
        (["--reward.functions", "number", "--reward.url", "http://a"], "start that service with --functions"),
        (["--reward.functions", "pairwise?weight=x", "--reward.judge_path", "m"], "should say a weight alone"),
        (
            ["--reward.functions", "pairwise", "--reward.judge_path", "m", "--reward.judge_request", "{first} ?"],
            "reward.judge_request holds no {second}",
        ),
        (
            ["--algo", "reinforce_pp", "--reward.functions", "pairwise", "--reward.judge_path", "m",
             "--rollout.samples_per_prompt", "1"],
            "rollout.samples_per_prompt of at least 2, not 1",
        ),
    ],
)  # fmt: skip
def test_what_nobody_could_compare_is_refused(flags: list[str], told: str) -> None:
    algo = [] if "--algo" in flags else ["--algo", "grpo"]
    with pytest.raises(RefusedInput) as refusal:
        load_config([*algo, *flags])
    assert told in str(refusal.value)
