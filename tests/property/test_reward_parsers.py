"""Whatever a policy writes, scoring it gives a number and never an exception."""

import asyncio
import re

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.verdicts import parse_verdict
from remote_rm import parts
from remote_rm.judges import rules
from remote_rm.judges.rules import RulesJudge, conclusion
from remote_rm.judges.words import verdict_of
from remote_rm.openrlhf import response_of
from remote_rm.parts import Question, format_score, parse_answer
from remote_rm.rulebooks import COMPAT, STRICT, Rulebook
from remote_rm.schema import RewardItem
from remote_rm.scorers import answers

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


def _found(rulebook: Rulebook, response: str, label: str = "1") -> dict[str, float | Question | None]:
    item = RewardItem.model_validate({"id": "a", "prompt": "", "response": response, "label": label})
    return {name: rule(item) for name, rule in rulebook.rules().items()}


@given(responses)
def test_scores_are_0_or_1_and_questions_can_be_judged(response: str) -> None:
    for rulebook in (STRICT, COMPAT):
        found = _found(rulebook, response)
        question = found.pop("consistency")
        assert set(found.values()) <= {0.0, 1.0} and isinstance(question, Question)
        verdict = asyncio.run(RulesJudge().judge(question.tail, question.answer)).verdict
        assert verdict in ("consistent", "inconsistent", "unknown")


@given(responses)
def test_outer_white_space_changes_nothing(response: str) -> None:
    padded = f"\n {response}\t\n"
    assert format_score(padded) == format_score(response)
    assert parse_answer(padded) == parse_answer(response)
    assert conclusion(padded) == conclusion(response)


@given(responses)
def test_a_strict_right_answer_is_right_in_compat_too(response: str) -> None:
    for label in ("1", "2"):
        strict, compat = (_found(rulebook, response, label)["accuracy"] for rulebook in (STRICT, COMPAT))
        assert isinstance(strict, float) and isinstance(compat, float) and strict <= compat


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


_WHITE = st.sampled_from([" ", "  ", "\t", "\n", "\u2003", " \n "])
spaced = st.lists(
    st.sampled_from([*PIECES, "-", "$", "3", ",000", "e5", "%", "response", "#"]) | _WHITE, max_size=14
).map("".join)


@given(spaced)
def test_what_is_read_in_one_pass_is_what_was_read_at_every_length(text: str) -> None:
    """Against the expressions as they were, on texts that are short enough for them."""
    block = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    assert parts._answer_or_all(text) == (text if block is None else block[1])
    one, rules._WHITE = rules._WHITE, re.compile(r"(?!)")
    other, answers._WHITE = answers._WHITE, re.compile(r"(?!)")
    try:
        before = conclusion(text), answers._number(text)
    finally:
        rules._WHITE, answers._WHITE = one, other
    assert (conclusion(text), answers._number(text)) == before


@given(
    st.sampled_from([*PIECES, "response ", "response", "1 ", "- ", "\\boxed{", "$"]),
    st.sampled_from(["", "x", *PIECES]),
)
def test_a_text_of_64_kb_is_read_in_time_that_grows_as_it_does(piece: str, end: str) -> None:
    """No clock: what is quadratic takes minutes here, and the suite's own limit ends it."""
    for start in ("", "response", "<answer>", "1"):
        text = start + piece * (65_536 // len(piece)) + end
        for read in (lambda t: _found(COMPAT, t), lambda t: _found(STRICT, t), conclusion, answers._number):
            read(text)
