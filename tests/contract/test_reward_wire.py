"""The wire format: one golden file, run against the real app, and the real client against the real service."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.reward import Reward, RewardItem
from remote_rm.app import Limits, create_app
from remote_rm.judges.rules import RulesJudge
from remote_rm.schema import MAX_ITEMS
from tests.contract.service import in_process, serving

GOLDEN: list[dict[str, Any]] = json.loads((Path(__file__).parent / "reward_wire.json").read_text())


def _post(path: str, body: Any, **options: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with in_process(create_app(RulesJudge(), None, **options)) as client:
            return await client.post(path, json=body)

    return asyncio.run(run())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["case"])
def test_golden_exchange(case: dict[str, Any]) -> None:
    answer, reply = _post(case["path"], case["request"]), case["reply"]
    if case["path"] == "/v1/rewards" and "items" in reply:
        items = [{"is_final": False, **item} for item in reply["items"]]
        reply = {"weights": {}, **reply, "items": items}
    assert (answer.status_code, answer.json()) == (case["status"], reply)


def test_the_client_sends_and_reads_the_golden_exchange() -> None:
    request, reply = GOLDEN[0]["request"], GOLDEN[0]["reply"]
    items = [
        RewardItem(
            uid=sent["id"].split("/")[0],
            sample_index=int(sent["id"].split("/")[1]),
            prompt=sent["prompt"],
            response=sent["response"],
            label=sent["label"],
            media=(),
        )
        for sent in request["items"]
    ]
    unsaid = {"group": None, "length": None, "finish_reason": None, "row": {}}
    asked = [unsaid | {k: v for k, v in sent.items() if k != "meta"} for sent in request["items"]]
    assert [item.to_json() for item in items] == asked
    with serving() as (url, _):
        client = RewardClient(lambda _=None: url, timeout_s=30.0, max_outage_s=5.0)
        try:
            assert client.health().state == "well"
            rewards = client.post(items).result()
        finally:
            client.close()
    assert rewards == {
        r["id"]: Reward(value=r["reward"], status=r["status"], detail=r["detail"], parts=r["parts"])
        for r in reply["items"]
    }


def test_a_protected_service_scores_for_the_holder_of_its_token_only(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("correct horse\n")
    item = RewardItem(
        uid="a", sample_index=0, prompt="?", response="<think>1</think><answer>1</answer>", label="1", media=()
    )
    with serving("--token-file", str(file)) as (url, _):
        for token, value_is_known in (("correct horse", True), ("wrong", False), (None, False)):
            client = RewardClient(lambda _=None: url, timeout_s=30.0, max_outage_s=5.0, token=token)
            try:
                assert (client.post([item]).result()["a/0"].value is not None) is value_is_known
            finally:
                client.close()


def test_a_body_over_the_limit_is_413() -> None:
    answer = _post("/v1/rewards", {"filler": "x" * 2000}, limits=Limits(max_body_bytes=1000))
    assert (answer.status_code, answer.json()) == (413, {"detail": "the body is larger than 1000 bytes"})


def test_a_body_that_hides_its_length_is_413_all_the_same() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    async def run() -> httpx.Response:
        app = create_app(RulesJudge(), None, limits=Limits(max_body_bytes=1000))
        async with in_process(app) as client:
            return await client.post("/v1/rewards", content=chunks())

    assert asyncio.run(run()).status_code == 413


def test_too_many_items_are_refused() -> None:
    items = [{"id": str(i), "reasoning": "", "answer": ""} for i in range(MAX_ITEMS + 1)]
    answer = _post("/v1/consistency", {"items": items})
    assert answer.status_code == 422
    assert f"at most {MAX_ITEMS} items" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'"\\ud800"', b"\xff"])
def test_a_body_that_is_no_request_is_a_refusal_and_no_crash(body: bytes) -> None:
    async def run() -> httpx.Response:
        async with in_process(create_app(RulesJudge(), None)) as client:
            return await client.post("/v1/rewards", content=body, headers={"Content-Type": "application/json"})

    assert asyncio.run(run()).status_code in (400, 422)


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
@pytest.mark.parametrize(
    ("header", "status"), [({}, 401), ({"Authorization": "Bearer no"}, 401), ({"Authorization": "Bearer secret"}, 200)]
)
def test_with_a_token_every_route_asks_for_it(path: str, header: dict[str, str], status: int) -> None:
    async def run() -> httpx.Response:
        async with in_process(create_app(RulesJudge(), None, token="secret")) as client:
            return await client.get(path, headers=header)

    assert asyncio.run(run()).status_code == status


def test_metrics_count_items_by_status() -> None:
    async def run() -> str:
        async with in_process(create_app(RulesJudge(), None)) as client:
            await client.post("/v1/rewards", json=GOLDEN[0]["request"])
            return (await client.get("/metrics")).text

    text = asyncio.run(run())
    assert 'raylign_reward_items_total{route="rewards",status="scored"} 5.0' in text
    assert 'raylign_reward_items_total{route="rewards",status="failed"} 1.0' in text
    assert 'raylign_judge_verdicts_total{source="judge",verdict="unknown"} 1.0' in text
