"""What becomes of rewards when the judge misbehaves: a status, never an exception and never a made-up score."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from remote_rm.app import Limits, create_app
from remote_rm.judges.openai_judge import OpenAiJudge
from remote_rm.judges.protocol import CircuitBreaker
from remote_rm.verdict_cache import VerdictCache
from tests.contract.fake_judge import Behaviour, Body, Drop, FakeJudge, Say, fake_judge
from tests.contract.service import in_process

RIGHT = "<think>\nline {}\nResponse 1 is better.\n</think>\n<answer>1</answer>"


def _body(num_items: int) -> dict[str, Any]:
    items = [{"id": str(i), "prompt": "", "response": RIGHT.format(i), "label": "1"} for i in range(num_items)]
    return {"request_id": "r", "items": items}


def _judge(fake: FakeJudge, *, timeout_s: float = 5.0, breaker: CircuitBreaker | None = None) -> OpenAiJudge:
    return OpenAiJudge(fake.url, "judge", timeout_s=timeout_s, breaker=breaker)


def _rewards(
    script: Sequence[Behaviour], num_items: int = 1, *, timeout_s: float = 5.0, limits: Limits | None = None
) -> tuple[list[dict[str, Any]], FakeJudge]:
    async def run(fake: FakeJudge) -> list[dict[str, Any]]:
        async with in_process(create_app(_judge(fake, timeout_s=timeout_s), None, limits=limits)) as client:
            return (await client.post("/v1/rewards", json=_body(num_items))).json()["items"]

    with fake_judge(*script) as fake:
        return asyncio.run(run(fake)), fake


@pytest.mark.parametrize(
    ("content", "reward"),
    [
        ("1", 2.0),
        ("0", 1.0),
        (" 1\n", 2.0),
        ("**1**", 2.0),
        ("1.", 2.0),
        ('"0"', 1.0),
        ("`0`", 1.0),
        ("(1)", 2.0),
        ("<think>Is it 0? No.</think>\n\n1", 2.0),
        ("Is it 1? No.\n</think>\n**0**.", 1.0),
        ("[THINK]0[/THINK]1", 2.0),
        ("◁think▷0◁/think▷1", 2.0),
        ("<seed:think>0</seed:think>\n1", 2.0),
        ([{"type": "thinking", "thinking": "0"}, {"type": "text", "text": "1"}], 2.0),
    ],
    ids=repr,
)
def test_a_readable_answer_is_scored(content: Any, reward: float) -> None:
    (item,), fake = _rewards([Say(content)])
    assert (item["reward"], item["status"]) == (reward, "scored")
    (request,) = fake.requests
    assert request["max_tokens"] == 1
    assert request["temperature"] == 0.0
    assert request["structured_outputs"] == {"choice": ["0", "1"]}


@pytest.mark.parametrize(
    "behaviour",
    [
        Say("10"),
        Say("-1"),
        Say("1.0"),
        Say("1 or 0"),
        Say("**1** 0"),
        Say("not 1"),
        Say("1\n\nThe reasoning prefers it."),
        Say("<think>1"),
        Say("<think>1</think>"),
        Say("<think>0</think>Response 1"),
        Say([{"type": "text", "text": "1"}, {"type": "text", "text": "0"}]),
        Say([{"type": "thinking", "thinking": "1"}]),
        Say(""),
        Say(None),
        Say("Response 1 is consistent"),
        Say("output: 1"),
        Say("１"),
        Say("**2**"),
        Say("Response 2"),
        Say('{"answer": 1}'),
        Body(b'data: {"choices": [{"delta": {"content": "1"}}]}'),
        Body(
            b'{"choices": [{"finish_reason": "tool_calls", "message": {"content": null, "tool_calls": [{"id": "1"}]}}]}'
        ),
        Body(b"<html>1</html>"),
        Body(b"1"),
        Body(b'{"choices": []}'),
        Body(b'{"choices": null}'),
        Body(b'{"choices": [{"message": {"content": 1}}]}'),
        Body(b""),
    ],
    ids=repr,
)
def test_an_unreadable_answer_is_unknown_and_never_guessed(behaviour: Behaviour) -> None:
    (item,), fake = _rewards([behaviour])
    assert (item["reward"], item["status"], item["parts"]["consistency"]) == (1.5, "unknown", 0.0)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("trouble", [Body(b"{}", 500), Body(b"{}", 503), Body(b"{}", 429), Drop()], ids=repr)
def test_passing_trouble_is_retried(trouble: Behaviour) -> None:
    (item,), fake = _rewards([trouble, Say("1")])
    assert (item["reward"], item["status"]) == (2.0, "scored")
    assert len(fake.requests) == 2


@pytest.mark.parametrize("trouble", [Body(b"{}", 500), Drop()], ids=repr)
def test_lasting_trouble_fails_the_item_without_a_score(trouble: Behaviour) -> None:
    (item,), fake = _rewards([trouble])
    assert (item["reward"], item["status"]) == (None, "failed")
    assert item["parts"] == {"format": 1.0, "accuracy": 1.0, "consistency": None}
    assert item["detail"].startswith("openai/judge ")
    assert len(fake.requests) == 4


def test_a_slow_judge_fails_within_the_deadline() -> None:
    started = time.monotonic()
    (item,), _ = _rewards([Say("1", after_s=3.0)], timeout_s=0.3, limits=Limits(judge_deadline_s=1.0))
    assert (item["reward"], item["status"]) == (None, "failed")
    assert "no answer within" in item["detail"]
    # The fake sleeps on after its caller left; only the service's own time counts.
    assert time.monotonic() - started < 8.0


def test_a_refusal_is_not_retried() -> None:
    (item,), fake = _rewards([Body(b'{"error": {"message": "no such model"}}', 404)])
    assert (item["reward"], item["status"]) == (None, "failed")
    assert "HTTP 404" in item["detail"]
    assert len(fake.requests) == 1


def test_one_failed_item_leaves_its_neighbours_alone() -> None:
    items, _ = _rewards([Say("1"), Body(b"{}", 404), Say("0")], 3, limits=Limits(judge_concurrency=1))
    assert [(i["id"], i["reward"]) for i in items] == [("0", 2.0), ("1", None), ("2", 1.0)]


def test_calls_are_concurrent_up_to_the_bound() -> None:
    items, fake = _rewards([Say("1", after_s=0.1)], 12, limits=Limits(judge_concurrency=4))
    assert [i["status"] for i in items] == ["scored"] * 12
    assert fake.most_at_once == 4


def test_concurrent_requests_never_swap_answers() -> None:
    """Eight requests at once, each with its own mixture of right and wrong items."""

    def body(request: int) -> dict[str, Any]:
        right = [(request + i) % 3 == 0 for i in range(9)]
        items = [
            {"id": f"{request}/{i}", "prompt": "", "response": RIGHT.format(i), "label": "1" if right[i] else "2"}
            for i in range(9)
        ]
        return {"request_id": str(request), "items": items}

    async def run(fake: FakeJudge) -> list[httpx.Response]:
        async with in_process(create_app(_judge(fake), None)) as client:
            return await asyncio.gather(*(client.post("/v1/rewards", json=body(r)) for r in range(8)))

    with fake_judge(Say("1", after_s=0.01)) as fake:
        answers = [answer.json() for answer in asyncio.run(run(fake))]
    for request, answer in enumerate(answers):
        assert answer["request_id"] == str(request)
        expected = {f"{request}/{i}": 2.0 if (request + i) % 3 == 0 else 0.5 for i in range(9)}
        assert {item["id"]: item["reward"] for item in answer["items"]} == expected


def test_a_dead_judge_opens_the_breaker_and_one_trial_closes_it() -> None:
    now = [0.0]
    breaker = CircuitBreaker(max_failures=1, reset_s=10.0, clock=lambda: now[0])

    async def run(fake: FakeJudge) -> list[tuple[str, int]]:
        seen = []
        async with in_process(create_app(_judge(fake, breaker=breaker), None)) as client:
            for advance in (0.0, 0.0, 11.0):
                now[0] += advance
                if advance:
                    fake.behave(Say("1"))
                (item,) = (await client.post("/v1/rewards", json=_body(1))).json()["items"]
                seen.append((item["status"], len(fake.requests)))
        return seen

    with fake_judge(Body(b"{}", 500)) as fake:
        assert asyncio.run(run(fake)) == [("failed", 4), ("failed", 4), ("scored", 5)]


def test_a_wrong_answer_never_reaches_the_judge() -> None:
    async def run(fake: FakeJudge) -> dict[str, Any]:
        body = _body(1)
        body["items"][0]["label"] = "2"
        async with in_process(create_app(_judge(fake), None)) as client:
            return (await client.post("/v1/rewards", json=body)).json()["items"][0]

    with fake_judge(Drop()) as fake:
        item = asyncio.run(run(fake))
    assert (item["reward"], item["status"], fake.requests) == (0.5, "scored", [])


def test_only_real_verdicts_are_cached(tmp_path: Path) -> None:
    async def run(fake: FakeJudge) -> list[str]:
        statuses = []
        async with in_process(create_app(_judge(fake), VerdictCache(tmp_path / "v.sqlite"))) as client:
            for _ in range(4):
                (item,) = (await client.post("/v1/rewards", json=_body(1))).json()["items"]
                statuses.append(item["status"])
        return statuses

    with fake_judge(Body(b"{}", 404), Say("10"), Say("0"), Drop()) as fake:
        assert asyncio.run(run(fake)) == ["failed", "unknown", "scored", "cached"]


@pytest.mark.parametrize(
    ("behaviour", "status"), [(Say("1"), 200), (Say("10"), 503), (Body(b"{}", 500), 503), (Drop(), 503)], ids=repr
)
def test_health_asks_the_judge(behaviour: Behaviour, status: int) -> None:
    async def run(fake: FakeJudge) -> httpx.Response:
        async with in_process(create_app(_judge(fake), None)) as client:
            return await client.get("/healthz")

    with fake_judge(behaviour) as fake:
        answer = asyncio.run(run(fake))
    assert answer.status_code == status
    assert answer.json()["judge"] == "openai/judge"
    assert (answer.json()["detail"] is None) == (status == 200)
    assert len(fake.requests) == 1
