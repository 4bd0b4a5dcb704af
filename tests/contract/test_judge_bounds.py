"""A judge that says too much costs bounded memory, one that repeats secrets spreads none, and none is asked in vain."""

import asyncio
import base64
import gzip
import json
import logging
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from orchestrator.rewards.asking import Question
from orchestrator.rewards.endpoint import EndpointWriter
from remote_rm.app import Limits, create_app
from remote_rm.connections import ConnectionBounds
from remote_rm.judges.openai_judge import OpenAiJudge
from remote_rm.judges.protocol import CircuitBreaker
from remote_rm.metrics import Metrics
from remote_rm.secret_words import Secrets
from remote_rm.verdict_cache import VerdictCache
from tests.contract.fake_judge import Behaviour, Body, Pour, Say, fake_judge
from tests.contract.service import in_process, listening

RIGHT = "<think>\nline {}\nResponse 1 is better.\n</think>\n<answer>1</answer>"
_KEY = "kQ7/pw=Zr9/very+own"
_BOMB = Body(gzip.compress(b" " * (100 << 20)), headers={"Content-Encoding": "gzip"})


def _body(count: int) -> dict[str, Any]:
    items = [{"id": str(i), "prompt": "", "response": RIGHT.format(i), "label": "1"} for i in range(count)]
    return {"request_id": "r", "items": items}


@pytest.mark.parametrize(
    "behaviour", [Pour(), Pour(400), Pour(503), Pour(307), _BOMB], ids=["200", "400", "503", "307", "gzip"]
)
def test_an_answer_of_any_length_is_stopped_and_its_item_fails_alone(behaviour: Behaviour) -> None:
    async def run(url: str) -> tuple[list[dict[str, Any]], str]:
        judge = OpenAiJudge(url, "m", timeout_s=50.0)
        async with in_process(create_app(judge, None, limits=Limits(judge_concurrency=1))) as client:
            items = (await client.post("/v1/rewards", json=_body(2))).json()["items"]
            return items, (await client.get("/metrics")).text

    with fake_judge(behaviour, Say("1")) as fake:
        (first, second), metrics = asyncio.run(run(fake.url))
        assert fake.poured < 32 << 20
    assert (first["status"], first["reward"]) == ("failed", None)
    assert first["detail"] == "openai/m answered with more than 8388608 bytes, which are not read"
    assert (second["status"], second["reward"]) == ("scored", 2.0)
    assert 'verdicts_total{source="judge",verdict="failed"} 1.0' in metrics


@pytest.mark.parametrize("behaviour", [Pour(), Pour(400), _BOMB], ids=["200", "400", "gzip"])
def test_so_is_one_to_a_run_that_asks_an_endpoint(behaviour: Behaviour) -> None:
    with fake_judge(behaviour) as fake:
        writer = EndpointWriter(fake.url, "m", max_new_tokens=8, timeout_s=50.0, max_outage_s=1.0)
        (answer,) = writer.write([Question("a", (), "which?")])
        assert fake.poured < 512 << 20
    assert answer.text is None and "more than 67108864 bytes" in str(answer.fault)


_WRITINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent": lambda text: quote(text, safe=""),
    "half percent": quote,
    "base64": lambda text: base64.b64encode(f"a{text}".encode()).decode(),
    "bearer": lambda text: f"Authorization: Bearer {text}",
    "userinfo": lambda text: f"http://me:{text}@host/",
    "half json": lambda text: "".join(f"\\u{ord(one):04x}" if at % 2 else one for at, one in enumerate(text)),
}


@pytest.mark.parametrize("write", _WRITINGS.values(), ids=_WRITINGS)
def test_a_judge_that_repeats_the_key_gets_it_into_no_answer_cache_metric_or_log(
    write: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    echo = write(_KEY)
    error = json.dumps({"error": {"message": f"wrong key {echo}"}}).encode()
    script = [
        Say(f"<think>{echo}</think>1", finish="stop"), Say(f"I say {echo}"), Body(error, 401), Body(echo.encode(), 404),
        Body(echo.encode()), Body(error), Say(f"I say {echo}"), Body(error, 401),
    ]  # fmt: skip

    async def run(url: str) -> str:
        judge = OpenAiJudge(url, "m", api_key=_KEY, timeout_s=5.0)
        async with in_process(
            create_app(
                judge, VerdictCache(tmp_path / "v.sqlite"), limits=Limits(judge_concurrency=1), secrets=Secrets([_KEY])
            )
        ) as client:
            asked = {"items": [{"id": str(i), "reasoning": f"{i}", "answer": "1"} for i in range(3)]}
            told = [await client.post("/v1/consistency", json=asked), await client.post("/v1/rewards", json=_body(3))]
            told += [await client.get("/healthz"), await client.get("/metrics")]
            told += [await client.post("/v1/rewards", json={"request_id": echo, "items": [], _KEY: 1})]
            return "\n".join(one.text for one in told)

    with caplog.at_level(logging.DEBUG, logger="remote_rm"), fake_judge(*script) as fake:
        told = asyncio.run(run(fake.url))
        assert len(fake.requests) >= 7
    with sqlite3.connect(tmp_path / "v.sqlite") as cache:
        told += str(cache.execute("SELECT * FROM verdicts").fetchall())
    cache.close()
    assert told.count("***") >= 5
    for piece in {echo, json.dumps(echo)[1:-1], _KEY, "".join(_KEY)[:8], base64.b64encode(_KEY.encode()).decode()[:12]}:
        assert piece not in told, told
        assert piece not in caplog.text


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "not kept"])
def test_nobody_is_judged_for_a_client_that_has_left_and_what_is_paid_for_is_kept(
    is_kept: bool, tmp_path: Path
) -> None:
    cache = VerdictCache(tmp_path / "v.sqlite") if is_kept else None
    breaker = CircuitBreaker(max_failures=1)

    with fake_judge(Say("1", after_s=0.5)) as fake:
        metrics = Metrics()
        judge = OpenAiJudge(fake.url, "m", timeout_s=30.0, breaker=breaker)
        app = create_app(judge, cache, limits=Limits(judge_concurrency=1), metrics=metrics)
        with listening(app, metrics, ConnectionBounds()) as port:
            _ask_and_leave(port, json.dumps(_body(12)).encode(), lambda: bool(fake.requests))
            _until(lambda: b"raylign_clients_left_total 1.0" in metrics.render())
            _until(lambda: b"raylign_judgements_running 0.0" in metrics.render())
            time.sleep(0.3)
            assert len(fake.requests) == 1
            breaker.admit()  # who leaves says nothing about the judge
    if is_kept:
        with sqlite3.connect(tmp_path / "v.sqlite") as kept:
            assert kept.execute("SELECT COUNT(*) FROM verdicts").fetchone() == (1,)
        kept.close()


def _ask_and_leave(port: int, body: bytes, is_asked: Callable[[], bool]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = f"POST /v1/rewards HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        _until(is_asked)


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about")


def test_an_item_too_long_to_read_fails_alone() -> None:
    async def run() -> list[dict[str, Any]]:
        with fake_judge(Say("1")) as fake:
            async with in_process(create_app(OpenAiJudge(fake.url, "m", timeout_s=5.0), None)) as client:
                body = _body(2)
                body["items"][0]["response"] = "x" * (1 << 20) + "x"
                return (await client.post("/v1/rewards", json=body)).json()["items"]

    long, other = asyncio.run(run())
    assert (long["status"], long["detail"]) == (
        "failed",
        "the response has 1048577 characters, at most 1048576 are read",
    )
    assert other["reward"] == 2.0
