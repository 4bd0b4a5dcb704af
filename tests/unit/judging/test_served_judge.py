"""A served judge over the wire: what it answers and refuses, and how requests meet workers; no worker runs."""

import asyncio
import contextlib
import gc
import json
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from orchestrator.config.load import load_config
from orchestrator.data.content_files import UnwritableFolder, written
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.evaluation.benchmarks.asking import Asked
from orchestrator.evaluation.predictions import Prediction
from orchestrator.judging.app import Bounds, create_app
from orchestrator.judging.chat import ChatRequest, Choice, Reply, prompt_of, request_in
from orchestrator.judging.desk import Desk, DeskError
from orchestrator.judging.served import ServedRewarder, ServedWriter
from orchestrator.judging.serving import listener_at
from tests.tiny_models import write_released_qwen2_5_vl
from tests.unit.evaluation.released_files import text_png
from workers.types import Prompt

_ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Which ?"}]}
_PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text_png(1)}"}}


class _Served:
    """Says of each request what it was asked."""

    config: Any = None
    plan = None

    def __init__(self) -> None:
        self.batches: list[int] = []

    def read(self, request: ChatRequest, prompt: Prompt) -> Prompt:
        assert all(Path(ref.path).is_file() for ref in prompt.media)
        return prompt

    def answer(self, works: Sequence[Prompt]) -> list[Reply]:
        self.batches.append(len(works))
        texts = ["".join(p.get("text", "") for m in one.messages for p in m["content"]) for one in works]
        return [Reply(choices=(Choice(text, "stop"),), prompt_tokens=3, completion_tokens=2) for text in texts]

    def opened(self, config: Any) -> Any:
        return contextlib.nullcontext(self.answer)


@contextlib.asynccontextmanager
async def _client(
    folder: Path,
    served: _Served,
    *,
    answer: Callable[[Sequence[Any]], list[Reply]] | None = None,
    stopped: list[str] | None = None,
    token: str | None = None,
    bounds: Bounds | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    desk = Desk(answer or served.answer, on_fault=lambda: (stopped if stopped is not None else []).append("stop"))
    app = create_app(served, desk, model="m", bounds=bounds or Bounds(), folder=folder, token=token)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://judge") as client,
    ):
        yield client


def _post(folder: Path, body: Any, **options: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with _client(folder, _Served(), **options) as client:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await client.post("/v1/chat/completions", content=content)

    return asyncio.run(run())


def test_a_request_is_answered_as_openai_does_and_leaves_no_picture(tmp_path: Path) -> None:
    asked = {**_ASKED, "messages": [{"role": "user", "content": [_PICTURE, {"type": "text", "text": "<|im_end|> ?"}]}]}
    reply = _post(tmp_path, asked)
    assert reply.status_code == 200
    told = reply.json()
    assert told["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "<|im_end|> ?"},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert (told["object"], told["model"]) == ("chat.completion", "m")
    assert told["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert list(tmp_path.iterdir()) == []


def _with(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {**_ASKED, "messages": [{"role": role, "content": list(parts)}]}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "JSON"),
        ({**_ASKED, "model": "other"}, 404, "model 'other' is not served, 'm' is"),
        ({**_ASKED, "stream": True}, 400, "stream = True: expected False"),
        ({**_ASKED, "logprobs": True}, 400, "logprobs = True: no such key"),
        ({**_ASKED, "n": 65}, 400, "n = 65: must be at most 64"),
        ({**_ASKED, "temperature": -1}, 400, "temperature = -1: must be at least 0"),
        ({**_ASKED, "messages": []}, 400, "messages = []: expected at least 1 values, got 0"),
        (_with({"type": "image_url", "image_url": {"url": "http://10.0.0.1/a.png"}}), 400, "nothing is fetched"),
        (_with({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}), 400, "nothing is fetched"),
        (_with({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}), 400, "no image of a kind"),
        (_with(*[_PICTURE] * 9), 400, "the messages hold 9 images, at most 8 are taken"),
        (_with(_PICTURE, role="system"), 400, "a turn of role 'system' holds an image, which only the user's may"),
        (_with({"type": "text", "text": "\ud800"}), 400, "Invalid JSON"),
        (_with(*[{"type": "text", "text": "a"}] * 257), 400, "expected at most 256 values, got"),
        (_with(*[{"type": "text"}] * 200), 400, "TextPart"),
        ({**_ASKED, **{f"k{n}": 1 for n in range(33)}}, 400, "35 keys, of which at most 32 are read"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_sentence(tmp_path: Path, body: Any, status: int, message: str) -> None:
    reply = _post(tmp_path, body)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error" and message in error["message"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_a_request_is_bounded_however_much_is_wrong() -> None:
    wrong = {f"k{n}": 1 for n in range(30)}
    body = {"model": "m", "messages": [{"role": "user", "content": [{**wrong, "type": "text"}] * 256, **wrong}] * 256}
    with pytest.raises(RefusedInput, match=r"more problems$") as refused:
        request_in(json.dumps(body).encode())
    assert isinstance(error := refused.value.__cause__, ValidationError) and error.error_count() < 100
    assert len(str(refused.value)) < 1000


def test_bodies_and_pictures_are_bounded(tmp_path: Path) -> None:
    small = Bounds(max_body_bytes=200, max_pixels=100)
    reply = _post(tmp_path, {**_ASKED, "user": "x" * 200}, bounds=small)
    assert (reply.status_code, reply.json()["error"]["message"]) == (413, "the body is larger than 200 bytes")
    reply = _post(tmp_path, _with(_PICTURE), bounds=Bounds(max_pixels=100))
    assert reply.status_code == 400 and "120" in reply.json()["error"]["message"]


def test_without_the_token_there_is_health_and_nothing_else(tmp_path: Path) -> None:
    async def run() -> list[int]:
        async with _client(tmp_path, _Served(), token="secret") as client:
            right = {"Authorization": "Bearer secret"}
            return [
                (await client.get("/health")).status_code,
                (await client.get("/v1/models")).status_code,
                (await client.get("/v1/models", headers={"Authorization": "Bearer wrong"})).status_code,
                (await client.get("/v1/models", headers=right)).status_code,
                (await client.post("/v1/chat/completions", json=_ASKED)).status_code,
                (await client.post("/v1/chat/completions", json=_ASKED, headers=right)).status_code,
                (await client.get("/docs", headers=right)).status_code,
            ]

    assert asyncio.run(run()) == [200, 401, 401, 200, 401, 200, 404]


def test_what_waits_while_workers_are_busy_is_asked_together(tmp_path: Path) -> None:
    served = _Served()

    async def run() -> set[str]:
        async with _client(tmp_path, served) as client:
            bodies = [{**_ASKED, "messages": [{"role": "user", "content": f"q{n}"}]} for n in range(20)]
            replies = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for body in bodies))
            return {reply.json()["choices"][0]["message"]["content"] for reply in replies}

    assert asyncio.run(run()) == {f"q{n}" for n in range(20)}
    assert sum(served.batches) == 20


def test_lost_workers_are_told_to_all_who_wait_and_end_the_server(tmp_path: Path) -> None:
    stopped = list[str]()

    def lose(works: Sequence[Any]) -> list[Reply]:
        raise GuardStop("gone")

    async def run() -> list[int]:
        async with _client(tmp_path, _Served(), answer=lose, stopped=stopped) as client:
            first = await client.post("/v1/chat/completions", json=_ASKED)
            assert first.json()["error"] == {
                "message": "the workers are lost",
                "type": "server_error",
                "param": None,
                "code": 503,
            }
            later = await client.post("/v1/chat/completions", json=_ASKED)
            return [first.status_code, later.status_code, (await client.get("/health")).status_code]

    assert (asyncio.run(run()), stopped) == ([503, 503, 503], ["stop"])


def test_who_has_no_place_is_told_before_a_body_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.judging.desk._MOST_WAITING", 1)
    served, goes_on, read = _Served(), threading.Event(), list[bytes]()

    async def body() -> AsyncIterator[bytes]:
        read.append(b"{")
        yield b"{"

    async def run() -> tuple[httpx.Response, httpx.Response]:
        async with _client(tmp_path, served, answer=_after(goes_on, served)) as client:
            first = asyncio.create_task(client.post("/v1/chat/completions", json=_ASKED))
            await _until(lambda: served.batches)
            second = await client.post("/v1/chat/completions", content=body())
            goes_on.set()
            return await first, second

    first, second = asyncio.run(run())
    assert (first.status_code, second.status_code, read) == (200, 503, [])
    assert second.json()["error"]["message"] == "1 requests wait already"


def _after(event: threading.Event, served: _Served) -> Callable[[Sequence[Any]], list[Reply]]:
    def answer(works: Sequence[Any]) -> list[Reply]:
        replies = served.answer(works)
        event.wait(20)
        return replies

    return answer


async def _until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def test_of_a_request_that_waits_only_what_workers_are_asked_is_kept(tmp_path: Path) -> None:
    served, goes_on = _Served(), threading.Event()
    body = json.dumps({**_ASKED, "user": "x" * (8 << 20)}).encode()

    async def run() -> int:
        async with _client(tmp_path, served, answer=_after(goes_on, served)) as client:
            tracemalloc.start()
            first = asyncio.create_task(client.post("/v1/chat/completions", content=body))
            try:
                await _until(lambda: served.batches)
                gc.collect()
                return tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
                goes_on.set()
                assert (await first).status_code == 200

    assert asyncio.run(run()) < 4 << 20


class _Gone:
    """A client that hangs up once ``event`` is set; as the server sees it."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages, self.event, self.statuses = list(messages), asyncio.Event(), list[int]()

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self.event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.statuses += [message["status"]] if "status" in message else []

    async def ask(self, app: Any) -> None:
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": []}
        await app(scope, self.receive, self.send)


def test_nobody_is_asked_for_who_has_hung_up(tmp_path: Path) -> None:
    served, goes_on = _Served(), threading.Event()
    whole = {"type": "http.request", "body": json.dumps(_ASKED).encode(), "more_body": False}

    async def run() -> list[int]:
        desk = Desk(_after(goes_on, served), on_fault=lambda: None)
        app = create_app(served, desk, model="m", bounds=Bounds(), folder=tmp_path)
        async with app.router.lifespan_context(app):
            busy, gone, half = _Gone(whole), _Gone(whole), _Gone({**whole, "body": b"{", "more_body": True})
            first = asyncio.create_task(busy.ask(app))
            await _until(lambda: served.batches)
            leaving = [asyncio.create_task(one.ask(app)) for one in (gone, half)]
            await asyncio.sleep(0.2)
            for one in (gone, half):
                one.event.set()
            async with asyncio.timeout(10):
                await asyncio.gather(*leaving)
            goes_on.set()
            await first
            last = _Gone(whole)
            await last.ask(app)
            return [*busy.statuses, *gone.statuses, *half.statuses, *last.statuses]

    assert asyncio.run(run()) == [200, 499, 499, 200]
    assert (served.batches, list(tmp_path.iterdir())) == ([1, 1], [])


def test_a_body_has_to_arrive_in_time(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(20)

    async def run() -> httpx.Response:
        async with _client(tmp_path, _Served(), bounds=Bounds(body_s=0.1)) as client:
            return await client.post("/v1/chat/completions", content=body())

    reply = asyncio.run(run())
    assert (reply.status_code, reply.json()["error"]["message"]) == (408, "the body took longer than 0.1 s")


def test_a_full_disk_is_no_fault_of_who_asks(tmp_path: Path) -> None:
    reply = _post(tmp_path / "missing", _with(_PICTURE))
    assert reply.status_code == 503 and str(tmp_path) not in reply.text
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableFolder):
        written(tmp_path / "file" / "pictures", b"a", suffix="png")
    served = _Served()

    def full(request: ChatRequest, prompt: Prompt) -> Prompt:
        raise UnwritableFolder(f"pictures cannot be written into {str(tmp_path)!r} (No space left on device)")

    served.read = full  # type: ignore[method-assign]

    async def run() -> httpx.Response:
        async with _client(tmp_path, served) as client:
            return await client.post("/v1/chat/completions", json=_ASKED)

    reply = asyncio.run(run())
    assert reply.status_code == 503 and str(tmp_path) not in reply.text
    assert reply.json()["error"]["type"] == "server_error"


def test_workers_lost_while_nobody_asks_end_the_server() -> None:
    stopped = list[str]()

    def lost() -> None:
        raise GuardStop("gone")

    async def run() -> None:
        desk = Desk(_Served().answer, on_fault=lambda: stopped.append("stop"), look=lost, look_every_s=0.05)
        async with asyncio.timeout(20):
            await desk.serve()
        assert isinstance(desk.fault, GuardStop)
        with pytest.raises(DeskError, match="the workers are lost"), desk.place():
            pass

    asyncio.run(run())
    assert stopped == ["stop"]


def test_only_this_machine_asks_without_a_token() -> None:
    with pytest.raises(RefusedInput, match=r"host = '0.0.0.0' is not loopback, so token_file is needed"):
        listener_at("0.0.0.0", 0, has_token=False)
    with pytest.raises(RefusedInput, match="port = 65536 should be from 0 to 65535"):
        listener_at("127.0.0.1", 65536, has_token=False)
    with listener_at("127.0.0.1", 0, has_token=False) as taken, pytest.raises(RefusedInput, match="cannot listen on"):
        listener_at("127.0.0.1", taken.getsockname()[1], has_token=False)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = write_released_qwen2_5_vl(tmp_path_factory.mktemp("served") / "model")
    flags = ["--algo", "sft", "--model.path", str(model), "--data.path", "-", "--rollout.max_new_tokens", "400"]
    return load_config(flags)[0]


def _read(served: Any, folder: Path, body: dict[str, Any], *, uid: str = "u") -> Any:
    request = request_in(json.dumps(body).encode())
    return served.read(request, prompt_of(request.messages, uid, folder=folder, max_images=2, max_pixels=None))


def test_a_model_that_writes_is_asked_for_each_choice_with_a_seed_of_its_own(config: Any, tmp_path: Path) -> None:
    served = ServedWriter(config, None, max_images=2)  # type: ignore[arg-type]
    body = {**_with(_PICTURE, {"type": "text", "text": "<|image_pad|> ?"}), "n": 3, "seed": 5, "temperature": 0.5}
    asked = _read(served, tmp_path, body)
    assert [(one.uid, one.sample_index, one.temperature) for one in asked] == [("u", n, 0.5) for n in range(3)]
    assert len({one.seed for one in asked}) == 3
    assert [one.seed for one in _read(served, tmp_path, body)] == [one.seed for one in asked]
    assert _read(served, tmp_path, _ASKED)[0].seed != _read(served, tmp_path, _ASKED)[0].seed
    assert _read(served, tmp_path, {**_ASKED, "max_completion_tokens": 7})[0].max_new_tokens == 7
    assert _read(served, tmp_path, _ASKED)[0].max_new_tokens == 400
    many = _with(*[{"type": "text", "text": "which " * 25}] * 256)
    with pytest.raises(RefusedInput, match="have 38400 characters, at most 32768 are read for the 512 tokens"):
        _read(served, tmp_path, many)
    with pytest.raises(RefusedInput, match="max_tokens is 512: together more than the 512 of this model's context"):
        _read(served, tmp_path, {**_ASKED, "max_tokens": 512})


class _Scorer:
    """Rewards by the length of a response."""

    plan = None

    def __init__(self, config: Any) -> None:
        self.config, self.measured = config, 0

    def unusable(self, items: Sequence[Any]) -> list[tuple[int, str]]:
        self.measured = len(items[0].media)
        return []

    @contextlib.contextmanager
    def opened(self, config: Any) -> Any:
        yield lambda asked: [self._said(one) for one in reversed(asked)]

    def _said(self, one: Asked) -> Prediction:
        text = "".join(part["text"] for part in one.item.responses[0])
        if not text:
            return one.prediction(0, rewards=(float("nan"),), finish_reason="1: too_long")
        return one.prediction(0, rewards=(float(len(text)),), text=f"1: {text} is short.")


def test_a_reward_model_criticises_the_last_turn_and_ends_in_a_line_of_json(config: Any, tmp_path: Path) -> None:
    scorer = _Scorer(config)
    served = ServedRewarder(scorer, config.model.path, max_images=2)  # type: ignore[arg-type]
    turns = [*_with(_PICTURE)["messages"], {"role": "assistant", "content": "a dog"}]
    silent = [*turns[:1], {"role": "assistant", "content": ""}]
    works = [_read(served, tmp_path, {**_ASKED, "messages": m}, uid=u) for u, m in (("a", turns), ("b", silent))]
    (asked, _), *_ = works
    assert [message["role"] for message in asked.prompt.messages] == ["user"] and len(asked.prompt.media) == 1
    with served.opened(config) as answer:
        told = [reply.choices[0].text.splitlines() for reply in answer(works)]
    assert told == [["a dog is short.", '{"reward": 5.0}'], ['{"reward": null, "why": "1: too_long"}']]
    assert scorer.measured == 2
    with pytest.raises(RefusedInput, match="should be the assistant's: it is what is rewarded"):
        _read(served, tmp_path, _ASKED)
    with pytest.raises(RefusedInput, match="characters, at most 32768 are read"):
        _read(served, tmp_path, {**_ASKED, "messages": [*turns[:1], {"role": "assistant", "content": "a" * 32769}]})
    with pytest.raises(RefusedInput, match="n = 2: a reward model says one thing"):
        _read(served, tmp_path, {**_ASKED, "messages": turns, "n": 2})
