"""A scalar reward model as the reward: asked about every different sample once, and never made up."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from algorithms.records import Sequence as TokenSequence
from orchestrator.config import load_config
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.rewards.reward import Reward, check_coverage, failed_reward, reward_metrics
from orchestrator.rewards.scalar import ScalarJudge
from tests.tiny_prompts import picture_prompts
from tests.user_files import write_llava
from workers.multimodal.fact_format import FactFormat
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(str(write_llava(tmp_path_factory.mktemp("rm") / "model")))


@pytest.fixture
def prompts(tmp_path: Path) -> list[Prompt]:
    return picture_prompts(tmp_path, {"picture": 1, "text": 0})


class _Workers:
    """A reward model to whom longer is better."""

    def __init__(self, found: float | None = None) -> None:
        self.asked: list[TokenSequence] = []
        self._found = found

    def each(self, method: str, items: Sequence[Any], *, deadline_s: float) -> list[Any]:
        assert method == "rewards"
        self.asked += items
        return [float(len(s.input_ids) - s.prompt_len) if self._found is None else self._found for s in items]


def _judge(
    workers: _Workers, encoder: PromptEncoder, *, max_tokens: int | None = None, cut: float | None = None
) -> ScalarJudge:
    return ScalarJudge(workers, encoder, weight=0.5, max_tokens=max_tokens, deadline_s=1.0, cut=cut)


def _scored(value: float = 1.0) -> Reward:
    return Reward(value=value, parts={"format": value}, status="scored", weights={"format": 1.0})


def test_each_different_sample_is_asked_about_once_by_its_own_ids(
    encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    workers = _Workers()
    of = [prompts[0], prompts[0], prompts[1], prompts[0]]
    texts = ["which ?", "which", "which", "which ?"]
    rewards, tallies = _judge(workers, encoder).added([_scored()] * 4, of, texts)
    assert len(workers.asked) == 3 and tallies == {}
    first = workers.asked[0]
    assert tuple(first.input_ids[: first.prompt_len]) == encoder.encode(prompts[0]).prompt_ids
    assert tuple(first.input_ids[first.prompt_len :]) == encoder.encode_target("which ?")
    assert [len(s.media) for s in workers.asked] == [1, 1, 0]
    numbers = [len(encoder.encode_target(text)) for text in texts]
    assert [r.parts["scalar"] for r in rewards] == numbers
    assert [r.value for r in rewards] == [1.0 + 0.5 * n for n in numbers]
    assert rewards[0].weights == {"format": 1.0, "scalar": 0.5}


def test_a_cut_response_is_worth_what_is_said_of_all_of_them(encoder: PromptEncoder, prompts: list[Prompt]) -> None:
    ended, was_cut = (
        Reward(value=0.0, parts={"unfinished": part}, status="scored", weights={"unfinished": 0.0})
        for part in (0.0, -1.0)
    )
    rewards, _ = _judge(_Workers(3.0), encoder, cut=-8.0).added([ended, was_cut], prompts, ["which", "which"])
    assert [(r.parts["scalar"], r.value) for r in rewards] == [(3.0, 1.5), (-8.0, -4.0)]
    # What the model says of it does not matter, be it nothing.
    (unread,), _ = _judge(_Workers(math.nan), encoder, cut=-8.0).added([was_cut], prompts[:1], ["which"])
    assert unread.value == -4.0
    plain, _ = _judge(_Workers(3.0), encoder).added([ended, was_cut], prompts, ["which", "which"])
    assert [r.value for r in plain] == [1.5, 1.5]


def test_one_that_is_told_facts_reads_each_sample_with_those_of_its_prompt(
    encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    workers, spelling = _Workers(), FactFormat(encoder, template="facts {facts} ?", opening="it is")
    told = [replace(prompt, meta={"facts": facts}) for prompt, facts in zip(prompts, (["a cat"], ["two"]), strict=True)]
    judge = ScalarJudge(workers, encoder, weight=1.0, max_tokens=None, deadline_s=1.0, facts=spelling)
    rewards, _ = judge.added([_scored()] * 3, [*told, replace(prompts[0], uid="untold")], ["which"] * 3)
    assert len(workers.asked) == 2
    for asked, prompt in zip(workers.asked, told, strict=True):
        expected = spelling.scored(prompt, "which", prompt.meta["facts"], sample_index=0).sequence
        assert (asked.input_ids == expected.input_ids).all() and asked.media == prompt.media
    assert rewards[2].status == "failed" and "has 0 facts" in str(rewards[2].detail)


@pytest.mark.parametrize("found", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_a_failed_reward(encoder: PromptEncoder, prompts: list[Prompt], found: float) -> None:
    failed = failed_reward("the service is away")
    rewards, _ = _judge(_Workers(found), encoder).added([_scored(), failed], prompts, ["which", "which"])
    assert (rewards[0].value, rewards[0].status, rewards[0].detail) == (
        None,
        "failed",
        f"scalar: its reward is {found}",
    )
    assert rewards[1] == failed


def test_numbers_that_are_none_are_counted_and_stop_a_run_that_has_too_many(
    encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    class Sometimes(_Workers):
        def each(self, method: str, items: Sequence[Any], *, deadline_s: float) -> list[Any]:
            return [math.nan, 2.0, 4.0, -math.inf]

    of, texts = [prompts[0]] * 4, ["a", "b", "c", "d"]
    rewards, _ = _judge(Sometimes(), encoder).added([_scored()] * 4, of, texts)
    figures = reward_metrics(rewards)
    assert (figures["judge/coverage"], figures["reward/scalar"], figures["reward/mean"]) == (0.5, 3.0, 2.5)
    check_coverage(rewards, minimum=0.5)
    with pytest.raises(GuardStop, match=r"coverage 0.500 is below .* 2 of 4 .*first reason: scalar: its reward is nan"):
        check_coverage(rewards, minimum=0.9)


def test_a_sample_that_the_model_cannot_read_whole_is_not_cut(encoder: PromptEncoder, prompts: list[Prompt]) -> None:
    workers = _Workers()
    most = len(encoder.encode(prompts[1]).prompt_ids) + 2
    rewards, _ = _judge(workers, encoder, max_tokens=most).added(
        [_scored()] * 2, [prompts[1]] * 2, ["a", "which ? " * 9]
    )
    assert len(workers.asked) == 1 and rewards[0].value is not None
    assert rewards[1].status == "failed" and f"more than the {most} that the reward model reads" in str(
        rewards[1].detail
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--reward.functions", "scalar"), '"scalar" in reward.functions needs reward.scalar_path'),
        (("--reward.scalar_path", "rm"), 'reward.scalar_path needs "scalar" in reward.functions'),
        (("--reward.functions", "scalar", "scalar?weight=2", "--reward.scalar_path", "rm"), 'has "scalar" twice'),
        (
            ("--reward.functions", "scalar", "--reward.scalar_path", "rm", "--reward.scalar_cut", "-8"),
            'reward.scalar_cut = -8 needs "scalar" and "unfinished" in reward.functions',
        ),
        (("--reward.functions", "scalar?scale=2", "--reward.scalar_path", "rm"), "should say a weight alone"),
    ],
)
def test_one_is_refused_without_the_other(flags: tuple[str, ...], told: str) -> None:
    with pytest.raises(RefusedInput, match=told.replace("?", r"\?")):
        load_config(["--algo", "grpo", *flags])
