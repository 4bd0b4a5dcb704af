"""A judge that is down is waited for; one that talks nonsense costs nobody else a reward. Real client, real service."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.reward import Reward, RewardItem
from tests.contract.fake_judge import Body, FakeJudge, Say, fake_judge
from tests.contract.service import serving

_DOWN = Body(b"no", 503)


@contextmanager
def _client(judge: FakeJudge, *, max_outage_s: float) -> Iterator[RewardClient]:
    with serving("--judge", "openai", "--judge-url", judge.url, "--judge-model", "judge") as (url, _):
        client = RewardClient(lambda _=None: url, timeout_s=30.0, max_outage_s=max_outage_s)
        try:
            yield client
        finally:
            client.close()


def _score(client: RewardClient, count: int) -> list[Reward]:
    stream = client.open_stream()
    for index in range(count):
        response = f"<think>\nline {index}\nResponse 1 is better.\n</think>\n<answer>1</answer>"
        stream.add(RewardItem(uid=f"p{index}", sample_index=0, prompt="", response=response, label="1", media=()))
    return list(stream.results().values())


def test_an_outage_of_the_judge_is_waited_out_and_every_reward_is_right() -> None:
    with fake_judge(_DOWN) as judge, _client(judge, max_outage_s=60.0) as client:
        timer = threading.Timer(4.0, judge.behave, [Say("1")])
        timer.start()
        began = time.monotonic()
        rewards = _score(client, 40)
        assert time.monotonic() - began > 4.0
        assert [(r.value, r.status) for r in rewards] == [(2.0, "scored")] * 40


def test_a_judge_that_stays_down_leaves_failed_rewards_that_say_so() -> None:
    with fake_judge(_DOWN) as judge, _client(judge, max_outage_s=2.0) as client:
        rewards = _score(client, 3)
        assert {(r.value, r.status) for r in rewards} == {(None, "failed")}
        assert all(r.detail for r in rewards)


def test_a_service_that_is_gone_leaves_failed_rewards_that_say_so() -> None:
    client = RewardClient(lambda _=None: "http://127.0.0.1:9", timeout_s=2.0, max_outage_s=1.0)
    (reward,) = _score(client, 1)
    client.close()
    assert (reward.value, reward.status) == (None, "failed")
    assert reward.detail is not None and "for 1 s" in reward.detail


def test_nonsense_for_a_third_of_the_calls_leaves_the_others_right() -> None:
    script = [Say("10"), Say("1"), Say("1")] * 10
    with fake_judge(*script) as judge, _client(judge, max_outage_s=5.0) as client:
        rewards = _score(client, 30)
    by_status = {status: [r.value for r in rewards if r.status == status] for status in ("scored", "unknown")}
    assert by_status == {"scored": [2.0] * 20, "unknown": [1.5] * 10}
