"""A reward service that answers badly: each sample that has no reward says why, and nothing raises. Real HTTP."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import GuardStop
from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.replies import read_rewards
from orchestrator.rewards.reward import Reward, RewardItem, check_coverage

Answer = Callable[[BaseHTTPRequestHandler, list[dict[str, Any]]], None]
_OUTAGE_S = 1.5


@contextmanager
def answering(answer: Answer, health: Answer | None = None) -> Iterator[tuple[str, list[int]]]:
    """A server that answers posts so; without ``health`` it has no such route. Yields its address and posted sizes."""
    posts: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            items = json.loads(self.rfile.read(int(self.headers["Content-Length"]))).get("items", [])
            posts.append(len(items))
            answer(self, items)

        def do_GET(self) -> None:
            if health is None:
                send(self, b"no such page", status=404)
            else:
                health(self, [])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", posts
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, *, status: int = 200, **headers: str) -> None:
    """One whole answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _good(item: dict[str, Any]) -> dict[str, Any]:
    parts = {"format": 1.0, "accuracy": 1.0, "consistency": 1.0}
    return {"id": item["id"], "reward": 2.0, "parts": parts, "status": "scored", "detail": None}


def _raw(body: bytes, *, status: int = 200, **headers: str) -> Answer:
    return lambda handler, items: send(handler, body, status=status, **headers)


def _each(change: dict[str, Any], *, without: tuple[str, ...] = ()) -> Answer:
    """Every item answered well, but for this."""

    def answer(handler: BaseHTTPRequestHandler, items: list[dict[str, Any]]) -> None:
        told = [{k: v for k, v in (_good(item) | change).items() if k not in without} for item in items]
        send(handler, json.dumps({"request_id": "r", "items": told}).encode())

    return answer


def _list(make: Callable[[list[dict[str, Any]]], list[Any]]) -> Answer:
    return lambda handler, items: send(handler, json.dumps({"items": make([_good(i) for i in items])}).encode())


def _close(handler: BaseHTTPRequestHandler, _: list[dict[str, Any]]) -> None:
    handler.close_connection = True


def _drip(handler: BaseHTTPRequestHandler, _: list[dict[str, Any]]) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _turn in range(40):
            handler.wfile.write(b" ")
            time.sleep(0.1)
    except OSError:
        pass
    handler.close_connection = True


def _endless(handler: BaseHTTPRequestHandler, _: list[dict[str, Any]]) -> None:
    send(handler, gzip.compress(b" " * 2_000_000), Content_Encoding="gzip")


_BAD: dict[str, tuple[Answer, str]] = {
    "HTML": (_raw(b"<html>Sign in</html>"), "not JSON: '<html>Sign in</html>'"),
    "nothing": (_raw(b""), "not JSON: nothing"),
    "no content": (_raw(b"", status=204), "HTTP 204"),
    "null": (_raw(b"null"), "no list of items: 'null'"),
    "a list": (_raw(b"[]"), "no list of items"),
    "an error with 200": (_raw(b'{"error": "out of memory"}'), "out of memory"),
    "items null": (_raw(b'{"items": null}'), "no list of items"),
    "items an object": (_raw(b'{"items": {}}'), "no list of items"),
    "deep nesting": (_raw(b"[" * 100_000), "not JSON"),
    "no item": (_list(lambda items: []), "left this item out"),
    "items of no kind": (_list(lambda items: [1, None, "x", [], {"id": 3}]), "left this item out"),
    "wrong ids": (
        _list(lambda items: [i | {"id": f"x{i['id']}"} for i in items]),
        "left this item out; it answered about",
    ),
    "twice": (_list(lambda items: items + items), "answered 2 times"),
    "no reward": (_each({}, without=("reward",)), "reward: Field required"),
    "no status": (_each({}, without=("status",)), "status: Field required"),
    "reward null": (_each({"reward": None}), "status 'scored' without a reward"),
    "reward a string": (_each({"reward": "2.0"}), "reward: Input should be a valid number (got '2.0')"),
    "reward a bool": (_each({"reward": True}), "reward: "),
    "reward a list": (_each({"reward": [2.0]}), "reward: "),
    "reward NaN": (_each({"reward": float("nan")}), "reward: Input should be a finite number (got 'nan')"),
    "reward infinite": (_each({"reward": float("-inf")}), "reward: Input should be a finite number"),
    "reward too large": (_each({"reward": 1e300}), "beyond what a float32 holds"),
    "reward an endless integer": (_each({"reward": 10**400}), "reward: "),
    "too many parts": (_each({"parts": {f"p{i}": 1.0 for i in range(65)}}), "parts: "),
    "a part a string": (_each({"parts": {"format": "1"}}), "parts.format: "),
    "a part NaN": (_each({"parts": {"consistency": float("nan")}}), "parts.consistency: "),
    "parts a list": (_each({"parts": [1]}), "parts: "),
    "unknown status": (_each({"status": "great"}), "status: "),
    "failed with words": (_each({"status": "failed", "reward": None, "detail": "no\n\x1b[31m luck"}), "no"),
    "failed with a reward": (_each({"status": "failed", "detail": 3}), "gave no reason"),
    "moved": (_raw(b"", status=301, Location="http://127.0.0.1:9/elsewhere"), "HTTP 301: it has moved to http"),
    "moved for now": (_raw(b"", status=307, Location="/elsewhere"), "HTTP 307: it has moved to /elsewhere"),
    "no access": (_raw(b"who are you", status=403), "HTTP 403: who are you"),
    "no such route": (_raw(b"nothing here", status=404), "HTTP 404: nothing here"),
    "gzip that is none": (_raw(b"not gzip at all", Content_Encoding="gzip"), "cannot be decoded"),
    "more than is read": (_endless, "longer than"),
    "not UTF-8": (_raw(b'{"items": [\xff]}'), "not JSON"),
}
_PASSING: dict[str, tuple[Answer, str]] = {
    "a closed connection": (_close, "for 1.5 s"),
    "HTTP 500": (_raw(b"oh no", status=500), "HTTP 500: oh no (for 1.5 s)"),
    "dripping": (_drip, "for 1.5 s"),
}


def _score(url: str, count: int, *, token: str | None = None, timeout_s: float = 0.8) -> list[Reward]:
    client = RewardClient(lambda _=None: url, timeout_s=timeout_s, max_outage_s=_OUTAGE_S, token=token)
    try:
        stream = client.open_stream()
        for index in range(count):
            stream.add(_item(index))
        found = stream.results()
        return [found[_item(index).id] for index in range(count)]
    finally:
        client.close()


def _item(index: int, response: str = "r") -> RewardItem:
    return RewardItem(uid=f"p{index}", sample_index=0, prompt="", response=response, label="1", media=())


@pytest.mark.parametrize("name", _BAD)
def test_an_answer_that_is_none_fails_every_sample_with_the_reason_and_is_not_waited_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, reason = _BAD[name]
    monkeypatch.setattr("orchestrator.rewards.client._MAX_BODY_BYTES", 1_000_000)
    with answering(answer) as (url, posts):
        rewards = _score(url, 3, timeout_s=20.0)
    assert {(r.value, r.status) for r in rewards} == {(None, "failed")}
    for reward in rewards:
        assert reward.detail is not None and reason in reward.detail, reward.detail
        assert len(reward.detail) < 400 and reward.detail.isprintable()
    assert len(posts) <= 2
    with pytest.raises(GuardStop, match=r"reward coverage 0\.000 is below reward\.min_coverage = 0\.9: 3 of 3"):
        check_coverage(rewards, minimum=0.9)


@pytest.mark.parametrize("name", _PASSING)
def test_trouble_that_may_pass_is_waited_for_within_bounds(name: str) -> None:
    answer, reason = _PASSING[name]
    with answering(answer) as (url, posts):
        (reward,) = _score(url, 1)
    assert (reward.value, reward.status) == (None, "failed")
    assert reward.detail is not None and reason in reward.detail
    assert len(posts) >= 2


def test_half_an_answer_is_half_the_rewards() -> None:
    with answering(_list(lambda items: [i for i in items if i["id"] in ("p0/0", "p2/0", "p4/0")])) as (url, _):
        rewards = _score(url, 6)
    assert [r.value for r in rewards] == [2.0, None] * 3


def test_what_nobody_asked_about_is_passed_over() -> None:
    with answering(_list(lambda items: [*items, items[0] | {"id": "another"}, {"note": "x"}])) as (url, _):
        assert [r.value for r in _score(url, 2)] == [2.0, 2.0]


def test_keys_of_a_services_own_and_missing_parts_are_its_own_affair() -> None:
    with answering(_each({"extra": [1], "reward": 1}, without=("parts", "detail"))) as (url, _):
        (reward,) = _score(url, 1)
    assert reward == Reward(value=1.0, status="scored")


def test_parts_go_by_any_name_that_a_figure_and_a_column_can_have() -> None:
    own = {"helpfulness": 0.5, "no_2": None, "My Score": "high", "mean": 3, "uid": 1, "é": 2, "a/b": 1}
    with answering(_each({"parts": own})) as (url, _):
        (reward,) = _score(url, 1)
    assert (reward.value, reward.parts) == (2.0, {"helpfulness": 0.5, "no_2": None})


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_item_that_spoils_its_batch_fails_alone(status: int) -> None:
    def answer(handler: BaseHTTPRequestHandler, items: list[dict[str, Any]]) -> None:
        if any(item["id"] == "p5/0" for item in items):
            send(handler, b"p5 is not to my taste", status=status)
        else:
            send(handler, json.dumps({"items": [_good(i) for i in items]}).encode())

    with answering(answer) as (url, _):
        rewards = _score(url, 20)
    assert [i for i, r in enumerate(rewards) if r.value is None] == [5]
    assert "p5 is not to my taste" in str(rewards[5].detail)


def test_half_of_a_character_fails_alone_and_is_not_sent() -> None:
    with answering(_each({})) as (url, posts):
        client = RewardClient(lambda _=None: url, timeout_s=5.0, max_outage_s=_OUTAGE_S)
        found = client.post([_item(0), _item(1, "a\ud800b"), _item(2, "\x00" * 9)]).result()
        only = client.post([_item(1, "\udfff")]).result()
        client.close()
    assert [found[f"p{i}/0"].value for i in range(3)] == [2.0, None, 2.0]
    assert "U+D800 at character 1" in str(found["p1/0"].detail)
    assert only["p1/0"].status == "failed"
    assert posts == [2]


def test_a_judge_that_refuses_for_good_is_not_waited_for() -> None:
    said = json.dumps({"status": "judge_refuses", "judge": "openai/m", "detail": "HTTP 401: bad key"}).encode()
    failed = _each({"status": "failed", "reward": None, "detail": "openai/m answered HTTP 401: bad key"})
    with answering(failed, health=_raw(said, status=503)) as (url, posts):
        (reward,) = _score(url, 1)
    assert reward.detail == "openai/m answered HTTP 401: bad key"
    assert len(posts) == 1


def test_a_service_that_repeats_the_token_does_not_get_it_told() -> None:
    for answer in (
        _raw(b"token sesame-open is wrong", status=401),
        _each({"status": "failed", "detail": "sesame-open"}),
    ):
        with answering(answer) as (url, _):
            (reward,) = _score(url, 1, token="sesame-open")
        assert "***" in str(reward.detail) and "sesame" not in str(reward.detail)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["a", "b", "c"]) | _JSON,
        "reward": st.floats() | _JSON,
        "status": st.sampled_from(["scored", "cached", "unknown", "failed"]) | _JSON,
        "parts": _JSON,
        "detail": _JSON,
    },
)


@given(st.binary(max_size=40) | st.lists(_ITEMS | _JSON, max_size=5).map(lambda x: json.dumps({"items": x}).encode()))
@settings(deadline=None, max_examples=100)
def test_whatever_the_bytes_are_every_item_has_a_reward_or_a_reason(body: bytes) -> None:
    found = read_rewards(body, ["a", "b"])
    assert list(found) == ["a", "b"]
    for reward in found.values():
        assert (reward.value is None) == (reward.status == "failed")
        assert reward.value is None or abs(reward.value) < 3.5e38
        assert reward.status != "failed" or reward.detail
        assert reward.detail is None or reward.detail.isprintable()
