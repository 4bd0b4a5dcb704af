"""Cookies that a service or a judge sets are not kept, so one that HTTP cannot send back ends nothing."""

import asyncio
import json

from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.reward import RewardItem
from remote_rm.judges.openai_judge import OpenAiJudge
from tests.contract.fake_judge import Body, fake_judge
from tests.contract.test_reward_answers import answering, send

_COOKIE = "s\xe9ance=\xff; path=/"


def test_a_cookie_that_is_no_ascii_costs_no_reward() -> None:
    body = json.dumps({"items": [{"id": "p/0", "reward": 1.0, "status": "scored"}]}).encode()
    item = RewardItem(uid="p", sample_index=0, prompt="", response="r", label="1", media=())
    with answering(lambda handler, _: send(handler, body, Set_Cookie=_COOKIE)) as (url, posts):
        client = RewardClient(lambda _=None: url, timeout_s=5.0, max_outage_s=1.0)
        values = [client.post([item]).result()["p/0"].value for _ in range(3)]
        client.close()
    assert values == [1.0] * 3 and posts == [1] * 3


def test_and_no_verdict() -> None:
    said = json.dumps({"choices": [{"message": {"content": "1"}}]}).encode()

    async def run(url: str) -> list[str]:
        judge = OpenAiJudge(url, "m", timeout_s=5.0)
        try:
            return [(await judge.judge(str(turn), "1")).verdict for turn in range(3)]
        finally:
            await judge.close()

    with fake_judge(Body(said, 200, {"Set-Cookie": _COOKIE})) as fake:
        assert asyncio.run(run(fake.url)) == ["consistent"] * 3
