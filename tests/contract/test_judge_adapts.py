"""Endpoints of every habit as judges: what they refuse is left out, what they need is given, each found out once."""

import asyncio
import json
import time
from typing import Any

import pytest

from remote_rm.app import create_app
from remote_rm.judges.openai_judge import OpenAiJudge
from remote_rm.judges.request import ROOM
from tests.contract.fake_judge import Behaviour, Body, Depends, FakeJudge, Say, fake_judge
from tests.contract.service import in_process

RIGHT = "<think>\nline {}\nResponse 1 is better.\n</think>\n<answer>1</answer>"


def _rewards(fake: FakeJudge, num_items: int, *, key: str = "EMPTY") -> list[dict[str, Any]]:
    items = [{"id": str(i), "prompt": "", "response": RIGHT.format(i), "label": "1"} for i in range(num_items)]

    async def run() -> list[dict[str, Any]]:
        judge = OpenAiJudge(fake.url, "judge", api_key=key, timeout_s=5.0)
        async with in_process(create_app(judge, None)) as client:
            return (await client.post("/v1/rewards", json={"request_id": "r", "items": items})).json()["items"]

    return asyncio.run(run())


def _refusing(*names: str, status: int = 400, told: str = "unknown argument: {}", form: str = "words") -> Depends:
    """Refuses the first of the parameters that a request holds, in one of the forms that endpoints have."""

    def answer(request: dict[str, Any]) -> Say | Body:
        held = [name for name in names if name in request]
        if not held:
            return Say("1")
        words = told.format(held[0])
        body: dict[str, Any] = {
            "words": {"error": {"message": words, "type": "invalid_request_error"}},
            "param": {"error": {"message": "Unsupported.", "param": held[0], "code": "unsupported_parameter"}},
            "pydantic": {"detail": [{"type": "extra_forbidden", "loc": ["body", held[0]], "msg": "Extra inputs"}]},
            "nested": {"object": "error", "message": {"detail": [{"loc": ["body", held[0]], "msg": "Extra inputs"}]}},
            "text": words,
        }[form]
        return Body(words.encode() if form == "text" else json.dumps(body).encode(), status)

    return Depends(answer)


@pytest.mark.parametrize("form", ["words", "param", "pydantic", "nested", "text"])
@pytest.mark.parametrize("status", [400, 422])
def test_a_plain_endpoint_is_asked_again_without_what_it_names(form: str, status: int) -> None:
    with fake_judge(_refusing("structured_outputs", form=form, status=status)) as fake:
        items = _rewards(fake, 20)
        assert [(i["reward"], i["status"]) for i in items] == [(2.0, "scored")] * 20
        # One refusal in all, though twenty asked at once.
        assert sum("structured_outputs" in request for request in fake.requests) == 1
        assert len(fake.requests) == 21
        # Nothing keeps it to one character now, so it may finish what it says.
        assert {request["max_tokens"] for request in fake.requests[1:]} == {ROOM}


def test_every_parameter_of_ours_may_be_refused_and_the_bound_has_two_names() -> None:
    refused = ("structured_outputs", "max_tokens", "temperature", "max_completion_tokens")
    with fake_judge(_refusing(*refused)) as fake:
        items = _rewards(fake, 8)
        assert [i["status"] for i in items] == ["scored"] * 8
        assert len(fake.requests) == 4 + 8
        assert set(fake.requests[-1]) == {"model", "messages"}


def test_the_other_name_of_the_bound_is_tried_before_it_is_dropped() -> None:
    told = "{} is not supported with this model; use max_completion_tokens"
    with fake_judge(_refusing("max_tokens", told=told)) as fake:
        (item,) = _rewards(fake, 1)
        assert item["status"] == "scored"
        assert [("max_tokens" in r, "max_completion_tokens" in r) for r in fake.requests] == [
            (True, False),
            (False, True),
        ]


def test_the_first_refusal_after_a_long_good_time_is_met_too() -> None:
    """An endpoint may be replaced by another while the service runs."""

    async def run(fake: FakeJudge) -> list[str]:
        judge = OpenAiJudge(fake.url, "judge", timeout_s=5.0)
        try:
            verdicts = [(await judge.judge("a", "1")).verdict]
            fake.behave(_refusing("structured_outputs", "temperature"))
            found = await asyncio.gather(*(judge.judge(str(i), "1") for i in range(6)))
            return verdicts + [judgement.verdict for judgement in found]
        finally:
            await judge.close()

    with fake_judge(Say("1")) as fake:
        assert asyncio.run(run(fake)) == ["consistent"] * 7
        assert sum("structured_outputs" in r for r in fake.requests) == 1 + 6 + 1


@pytest.mark.parametrize(
    ("status", "message"),
    [(400, "prompt is too long"), (401, "bad key"), (403, "no"), (404, "model 'judge' not found"), (422, "no")],
)
def test_a_lasting_refusal_is_told_at_once_and_asked_once(status: int, message: str) -> None:
    with fake_judge(Body(json.dumps({"error": {"message": message}}).encode(), status)) as fake:
        (item,) = _rewards(fake, 1)
        assert (item["reward"], item["status"]) == (None, "failed")
        assert f"HTTP {status}" in item["detail"] and message in item["detail"]
        assert len(fake.requests) == 1


def test_a_refusal_that_names_what_is_gone_already_ends() -> None:
    with fake_judge(Body(b'{"error": {"message": "structured_outputs, temperature, max_tokens: no"}}', 400)) as fake:
        (item,) = _rewards(fake, 1)
        assert item["status"] == "failed"
        assert len(fake.requests) <= 5


def test_a_request_that_stays_refused_teaches_nothing() -> None:
    """One input that is too long names the bound; the others keep theirs."""

    async def run(fake: FakeJudge) -> None:
        judge = OpenAiJudge(fake.url, "judge", timeout_s=5.0)
        try:
            await judge.judge("a", "1")
            fake.behave(Body(b'{"error": {"message": "max_tokens must be at least 1, got -7"}}', 400))
            with pytest.raises(Exception, match="max_tokens must be"):
                await judge.judge("too long", "1")
            fake.behave(Say("1"))
            await judge.judge("b", "1")
        finally:
            await judge.close()

    with fake_judge(Say("1")) as fake:
        asyncio.run(run(fake))
        assert fake.requests[-1]["max_tokens"] == 1


def _thinking(first: Say, then: Say) -> Depends:
    return Depends(lambda request: first if request.get("max_tokens", ROOM) == 1 else then)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (Say("<think>", finish="length"), Say("<think>They agree.</think>\n\n1")),
        (Say("Okay", finish="length"), Say("Okay, they agree.\n</think>\n\n1")),
        (Say(None, finish="length", reasoning="The"), Say("1", reasoning="They agree.")),
        (Say("", finish=None), Say("1")),
        (Say("**", finish="length"), Say("**1**")),
    ],
    ids=repr,
)
def test_a_judge_that_thinks_is_given_room_once_it_has_shown_that_it_does(first: Say, then: Say) -> None:
    with fake_judge(_thinking(first, then)) as fake:
        items = _rewards(fake, 12)
        assert [(i["reward"], i["status"]) for i in items] == [(2.0, "scored")] * 12
        assert [r["max_tokens"] for r in fake.requests] == [1] + [ROOM] * 12


def test_a_judge_that_is_never_readable_is_unknown_and_shows_what_it_said() -> None:
    with fake_judge(Say("<think>" + "hm " * 500, finish="length")) as fake:
        items = _rewards(fake, 3)
        assert {(i["reward"], i["status"]) for i in items} == {(1.5, "unknown")}
        assert all("<think>hm" in i["detail"] and len(i["detail"]) < 300 for i in items)


@pytest.mark.parametrize(("code", "calls"), [(429, 4), (503, 4), ("401", 1), ("insufficient_quota", 1), (None, 1)])
def test_an_error_with_http_200_is_no_answer(code: Any, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote_rm.judges.openai_judge._LONGEST_WAIT_S", 0.01)
    body = {"error": {"message": "quota exceeded", "code": code}, "choices": []}
    with fake_judge(Body(json.dumps(body).encode())) as fake:
        (item,) = _rewards(fake, 1)
        assert (item["reward"], item["status"]) == (None, "failed")
        assert "quota exceeded" in item["detail"]
        assert len(fake.requests) == calls


def _times(script: list[Behaviour]) -> tuple[list[dict[str, Any]], float]:
    with fake_judge(*script) as fake:
        began = time.monotonic()
        return _rewards(fake, 1), time.monotonic() - began


def test_a_judge_that_asks_to_be_left_alone_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote_rm.judges.openai_judge._LONGEST_WAIT_S", 0.01)
    (item,), took_s = _times([Body(b"{}", 429, {"Retry-After": "1"}), Say("1")])
    assert item["status"] == "scored" and took_s >= 1.0


def test_but_no_longer_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote_rm.judges.openai_judge._LONGEST_ASKED_WAIT_S", 0.1)
    monkeypatch.setattr("remote_rm.judges.openai_judge._LONGEST_WAIT_S", 0.01)
    for asked in ("3600", "Wed, 21 Oct 2099 07:28:00 GMT", "inf", "nan", "soon", "-1"):
        (item,), took_s = _times([Body(b"{}", 503, {"Retry-After": asked}), Say("1")])
        assert item["status"] == "scored" and took_s < 5.0, asked


def test_an_account_without_money_is_not_waited_for() -> None:
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with fake_judge(Body(json.dumps(body).encode(), 429)) as fake:
        (item,) = _rewards(fake, 1)
        assert "exceeded your current quota" in item["detail"]
        assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_an_endpoint_that_repeats_the_key_does_not_get_it_told(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote_rm.judges.openai_judge._LONGEST_WAIT_S", 0.01)
    body = Body(b'{"error": {"message": "Incorrect API key provided: sk-very-secret"}}', status)
    with fake_judge(body) as fake:
        (item,) = _rewards(fake, 1, key="sk-very-secret")
        assert "Incorrect API key provided: ***" in item["detail"]
        assert "secret" not in item["detail"]


def test_health_tells_trouble_that_may_pass_from_trouble_that_will_not() -> None:
    async def run(fake: FakeJudge) -> list[tuple[int, str]]:
        found = []
        async with in_process(create_app(OpenAiJudge(fake.url, "judge", timeout_s=5.0), None)) as client:
            for behaviour in (Say("1"), Body(b"{}", 503), Body(b"{}", 401), Say("maybe")):
                fake.behave(behaviour)
                answer = await client.get("/healthz")
                found.append((answer.status_code, answer.json()["status"]))
        return found

    with fake_judge(Say("1")) as fake:
        assert asyncio.run(run(fake)) == [
            (200, "ok"),
            (503, "judge_unavailable"),
            (503, "judge_refuses"),
            (503, "judge_refuses"),
        ]


def test_an_item_that_ends_in_an_exception_fails_alone_and_frees_the_breaker() -> None:
    """Half of a character is JSON, but no text that could be sent to a judge."""
    items = [{"id": str(i), "prompt": "", "response": RIGHT.format(i), "label": "1"} for i in range(4)]
    items[1]["response"] = RIGHT.format("\ud800")
    items[2]["response"] = RIGHT.format("\x00" + "x" * 100_000)
    body = json.dumps({"request_id": "r", "items": items}).encode()

    async def run(fake: FakeJudge) -> list[dict[str, Any]]:
        judge = OpenAiJudge(fake.url, "judge", timeout_s=5.0)
        async with in_process(create_app(judge, None)) as client:
            answer = await client.post("/v1/rewards", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 200
            # What never passes our own checks must not jam the breaker either.
            with pytest.raises(UnicodeEncodeError):
                await judge.judge("\ud800", "1")
            assert (await judge.judge("a", "1")).verdict == "consistent"
            pairs = [{"id": i, "reasoning": r, "answer": "1"} for i, r in enumerate(["\udfff", "Response 1 it is"])]
            for pair in pairs:
                pair["id"] = str(pair["id"])
            content = json.dumps({"items": pairs}).encode()
            judged = await client.post("/v1/consistency", content=content, headers={"Content-Type": "application/json"})
            assert [item["status"] for item in judged.json()["items"]] == ["failed", "scored"]
        return answer.json()["items"]

    with fake_judge(Say("1")) as fake:
        found = asyncio.run(run(fake))
    assert [item["status"] for item in found] == ["scored", "failed", "scored", "scored"]
    assert found[1]["reward"] is None and "U+D800" in found[1]["detail"]


@pytest.mark.parametrize(
    "item",
    [rb'{"id": "\ud800", "prompt": "", "response": "", "label": "1"}', rb'{"\ud800": 1}', rb'{"id": {"\ud800": 1}}'],
)
def test_an_id_that_no_reply_could_carry_is_refused(item: bytes) -> None:
    body = b'{"request_id": "r", "items": [%s]}' % item

    async def run(fake: FakeJudge) -> int:
        async with in_process(create_app(OpenAiJudge(fake.url, "judge", timeout_s=5.0), None)) as client:
            headers = {"Content-Type": "application/json"}
            return (await client.post("/v1/rewards", content=body, headers=headers)).status_code

    with fake_judge(Say("1")) as fake:
        assert asyncio.run(run(fake)) == 422
