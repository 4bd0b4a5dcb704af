"""A reward service that speaks OpenRLHF's JSON is used as it is: ``reward.url = "http://.../get_reward"``."""

import json

import pytest

from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.reward import Reward, RewardItem
from tests.contract.service import serving
from tests.contract.test_reward_answers import answering, send

_ITEMS = [
    RewardItem(uid="p", sample_index=i, prompt="which?", response=f"<answer>{i + 1}</answer>", label="2", media=())
    for i in range(2)
]


def _asked(url: str) -> dict[str, Reward]:
    client = RewardClient(lambda _=None: url, timeout_s=10.0, max_outage_s=0.5)
    try:
        return client.post(_ITEMS).result()
    finally:
        client.close()


def test_our_own_service_by_that_route() -> None:
    with serving("--functions", "exact") as (url, _):
        found = _asked(f"{url}/get_reward")
    assert [found[item.id].value for item in _ITEMS] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("answer", "values", "told"),
    [
        ({"rewards": [0.5, 1], "scores": [0, 1], "extra_logs": {"x": [1, 2]}}, [0.5, 1.0], None),
        ({"rewards": [[0.5], [1.0]]}, [0.5, 1.0], None),
        ({"rewards": [None, "1"]}, [None, None], "expected a finite number"),
        ({"rewards": [True, 1e300]}, [None, None], "expected a finite number"),
        ({"rewards": [0.5]}, [None, None], "1 rewards for 2 items"),
        ({"error": "busy"}, [None, None], "no list of rewards for 2 items"),
        ([1, 2], [None, None], "no list of rewards for 2 items"),
    ],
)
def test_what_others_answer(answer: object, values: list[float | None], told: str | None) -> None:
    with answering(lambda handler, _: send(handler, json.dumps(answer).encode())) as (url, _):
        found = _asked(f"{url}/get_reward")
    assert [found[item.id].value for item in _ITEMS] == values
    assert told is None or told in str(found[_ITEMS[-1].id].detail)
