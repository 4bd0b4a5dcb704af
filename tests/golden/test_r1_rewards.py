"""Rewards against the original R1-Reward server: the ``compat`` rules reproduce it, ours deviate as listed."""

import asyncio
from typing import Any

import pytest

from remote_rm.app import Limits, create_app
from remote_rm.judges import words
from remote_rm.judges.openai_judge import OpenAiJudge
from remote_rm.judges.words import verdict_of
from remote_rm.openrlhf import response_of
from remote_rm.parts import (
    Question,
    accuracy_score,
    format_score,
    released_accuracy,
    released_format,
    released_question,
    strict_question,
)
from remote_rm.rulebooks import COMPAT
from tests.contract.fake_judge import Say, fake_judge
from tests.contract.service import in_process
from tests.golden.vectors import Case, one, select

FILE = "r1_reward.json"
SERVER = "openrlhf/models/remote_rm/math_verifier_mllm.py"
FORMAT, RESPONSE, ACCURACY = f"{SERVER}:30-39,268", f"{SERVER}:19-27", f"{SERVER}:105-132"
SLOTS, REPLIES, ROUTE = f"{SERVER}:134-172", f"{SERVER}:176-211", f"{SERVER}:215-247"

STRICT_FORMAT = {
    "valid": {2: False, 3: False},
    "whitespace": {0: True, 1: True, 2: True, 4: True},
    "extra_tags": {0: False, 1: False},
}
"""Ours refuses empty blocks and repeated closing tags, and allows white space around the blocks."""
STRICT_ACCURACY = {
    "gold_2_tagged": {2: 0.0, 3: 0.0, 5: 0.0, 6: 0.0, 7: 0.0, 9: 0.0},
    "gold_1_tagged": {2: 0.0, 3: 0.0, 5: 0.0, 6: 0.0, 9: 0.0},
    "gold_plain_text": {1: 0.0, 2: 0.0, 3: 0.0},
}
"""Ours scores an answer block that is 1 or 2, and nothing else."""
UNREADABLE = {
    "prefixed": [0, 1, 2, 3],
    "explained": [0, 1, 2, 3, 4],
    "retries": [0, 1, 2, 3, 4],
}
_SCORES = {"consistent": 1, "inconsistent": -1, "unknown": 0}
"""Judge replies the release searches for a digit, or asks again about; ours calls them unknown."""
NO_RESPONSE = {
    "chatml": {2: "no header at all"},
    "qwen1": {1: "wrong template"},
    "base": {1: "User: q\n\nAssistant:r2"},
}
"""Texts without the template's header: the release takes the whole query, ours looks for every known header first."""


def _name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", select(FILE, FORMAT), ids=_name)
def test_format(case: Case) -> None:
    contents, released = case.inputs["contents"], case.outputs["ok"]
    assert [released_format(content) == 1.0 for content in contents] == released
    deviating = STRICT_FORMAT.get(case.name, {})
    expected = [deviating.get(i, ok) for i, ok in enumerate(released)]
    assert [format_score(content) == 1.0 for content in contents] == expected
    assert all(ok != released[i] for i, ok in deviating.items())


@pytest.mark.parametrize("case", select(FILE, RESPONSE), ids=_name)
def test_response_inside_the_query(case: Case) -> None:
    released = case.outputs["response"]
    expected = [NO_RESPONSE[case.name][i] if text is None else text for i, text in enumerate(released)]
    assert [response_of(query, "") for query in case.inputs["queries"]] == expected


@pytest.mark.parametrize("case", select(FILE, ACCURACY, without=("exception_gives_1",)), ids=_name)
def test_lenient_accuracy(case: Case) -> None:
    """``exception_gives_1`` is left out: a label that is no text cannot reach ours, and no exception ever scores."""
    scores = [released_accuracy(content, case.inputs["gold"]) for content in case.inputs["contents"]]
    assert scores == case.outputs["accuracy"]


@pytest.mark.parametrize(("name", "label"), [("gold_2_tagged", "2"), ("gold_1_tagged", "1"), ("gold_plain_text", "2")])
def test_strict_accuracy(name: str, label: str) -> None:
    case = one(FILE, ACCURACY, name)
    released, deviating = case.outputs["accuracy"], STRICT_ACCURACY[name]
    scores = [accuracy_score(content, label) for content in case.inputs["contents"]]
    assert scores == [deviating.get(i, score) for i, score in enumerate(released)]
    assert all(score != released[i] for i, score in deviating.items())


@pytest.mark.parametrize("case", select(FILE, SLOTS), ids=_name)
def test_texts_given_to_the_judge(case: Case) -> None:
    slots = released_question(case.inputs["response"])
    assert slots == Question(case.outputs["reasoning_slot"], case.outputs["answer_slot"])


def test_ours_shows_the_judge_neither_tags_nor_blank_lines() -> None:
    case = one(FILE, SLOTS, "slots_6")
    assert strict_question(case.inputs["response"]) == Question("y\nz\nw", "Response 2 is better.")


@pytest.mark.parametrize("case", select(FILE, REPLIES, without=("null_content_raises",)), ids=_name)
def test_judge_replies(case: Case) -> None:
    """``null_content_raises`` is left out: there the release dies with HTTP 500; for ours see the judge's contract."""
    for i, (replies, score) in enumerate(zip(case.inputs["judge_replies"], case.outputs["score"], strict=True)):
        verdict = verdict_of(replies[0])
        if i in UNREADABLE.get(case.name, []):
            assert verdict == "unknown"
        else:
            assert verdict == ("consistent" if score == 1 else "inconsistent")


@pytest.mark.parametrize("case", select(FILE, REPLIES, without=("null_content_raises",)), ids=_name)
def test_released_reading_of_judge_replies_and_how_often_it_asks(case: Case) -> None:
    async def run(url: str) -> str:
        judge = OpenAiJudge(url, "judge", timeout_s=10.0, manner=words.COMPAT)
        try:
            return (await judge.judge("r", "1")).verdict
        finally:
            await judge.close()

    scores, calls = [], []
    for replies in case.inputs["judge_replies"]:
        with fake_judge(*map(Say, replies)) as fake:
            scores.append(_SCORES[asyncio.run(run(fake.url))])
            calls.append(len(fake.requests))
            assert not any("structured_outputs" in request for request in fake.requests)
    assert (scores, calls) == (case.outputs["score"], case.outputs["judge_calls"])


@pytest.mark.parametrize(
    "case",
    select(
        FILE,
        ROUTE,
        without=("unknown_prompt_uses_nearest_by_levenshtein", "missing_query_key", "judge_null_content_is_http_500"),
    ),
    ids=_name,
)
def test_route(case: Case) -> None:
    """Left out: labels travel in our request, a missing key is 422, and a null reply is ``unknown``."""
    assert _post_query(case) == case.outputs["body"]["rewards"]


def test_a_null_judge_reply_costs_the_release_the_batch_and_ours_nothing() -> None:
    assert _post_query(one(FILE, ROUTE, "judge_null_content_is_http_500")) == [1.5, 2.0]


def _post_query(case: Case) -> list[float | None]:
    """The case through ``/get_reward``; the release's judge is asked about wrong answers too, ours is not."""
    golds = case.params["problem_to_answer"]
    body: dict[str, Any] = {k: case.inputs[k] for k in ("query", "prompts")}
    body["labels"] = [golds[prompt][0] for prompt in case.inputs["prompts"]]

    async def run(url: str) -> list[float | None]:
        judge = OpenAiJudge(url, "judge", timeout_s=10.0, manner=words.COMPAT)
        # One call at a time, so that replies meet their items in order.
        async with in_process(create_app(judge, None, rulebook=COMPAT, limits=Limits(judge_concurrency=1))) as client:
            return (await client.post("/get_reward", json=body)).json()["rewards"]

    stored = case.inputs["judge_replies"]
    # A judge that says null says it again.
    said = [reply for replies in stored for reply in (replies * 3 if replies == [None] else replies)]
    with fake_judge(*map(Say, said)) as fake:
        return asyncio.run(run(fake.url))
