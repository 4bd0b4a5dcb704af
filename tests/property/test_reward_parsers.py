"""Whatever a policy writes, scoring it gives a number and never an exception."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.evaluation.answers import parse_verdict
from remote_rm.judges.replies import verdict_of
from remote_rm.judges.rules import RulesJudge, conclusion
from remote_rm.openrlhf import response_of
from remote_rm.schema import RewardItem
from remote_rm.scorers.accuracy import parse_answer
from remote_rm.scorers.format import format_score
from remote_rm.scorers.rulebook import COMPAT, STRICT

PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "1",
    "2",
    " ",
    "\n",
    "response 1",
    "the second response",
    "both",
    "not",
    "than",
    ",",
    ".",
    "\\frac{1}{2}",
    "1/0",
    "１",
    "<|im_start|>assistant\n",
    "\x00",
]
responses = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=20).map("".join)


@given(responses)
def test_the_service_and_the_evaluation_read_the_same_verdict(response: str) -> None:
    assert parse_answer(response) == parse_verdict(response)


@given(
    st.sampled_from(["<think>a</think>", ""]), st.text(max_size=4) | st.sampled_from(["1", " 2\n", "\x1c1", "1\u2003"])
)
def test_they_agree_inside_a_single_block_too(before: str, answer: str) -> None:
    response = f"{before}<answer>{answer}</answer>"
    assert parse_answer(response) == parse_verdict(response)


@given(responses)
def test_scores_are_0_or_1_and_slots_are_texts(response: str) -> None:
    for rulebook in (STRICT, COMPAT):
        assert rulebook.format(response) in (0.0, 1.0)
        assert rulebook.accuracy(response, "1") in (0.0, 1.0)
        tail, answer = rulebook.slots(response)
        assert asyncio.run(RulesJudge().judge(tail, answer)).verdict in ("consistent", "inconsistent", "unknown")


@given(responses)
def test_outer_white_space_changes_nothing(response: str) -> None:
    padded = f"\n {response}\t\n"
    assert format_score(padded) == format_score(response)
    assert parse_answer(padded) == parse_answer(response)
    assert conclusion(padded) == conclusion(response)


@given(responses)
def test_a_strict_right_answer_is_right_in_compat_too(response: str) -> None:
    for label in ("1", "2"):
        assert STRICT.accuracy(response, label) <= COMPAT.accuracy(response, label)


@given(st.text())
def test_only_the_two_digits_are_verdicts(reply: str) -> None:
    expected = {"1": "consistent", "0": "inconsistent"}.get(reply.strip(), "unknown")
    assert verdict_of(reply) == expected


@given(st.text(min_size=1), st.text())
def test_a_completion_after_its_prompt_is_found_whatever_it_says(prompt: str, completion: str) -> None:
    tokens = ("<|im_end|>", "<|endoftext|>", "<｜end▁of▁sentence｜>")
    if not any(token in completion for token in tokens):
        assert response_of(prompt + completion, prompt) == completion.strip()


@given(st.text(max_size=20))
def test_the_wire_keeps_a_response_as_it_is(response: str) -> None:
    item = RewardItem(id="a", prompt="", response=response, label="1")
    assert RewardItem.model_validate_json(item.model_dump_json()) == item
