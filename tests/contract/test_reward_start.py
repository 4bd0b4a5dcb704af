"""Before anything is started the reward service, its judge and its cache are asked: what does not serve is refused."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load_config
from orchestrator.errors import RefusedInput
from orchestrator.pipeline import online as online_run
from orchestrator.rewards.check import check_rewards, service_arguments
from orchestrator.rewards.client import RewardClient
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main
from remote_rm.judges.openai_judge import OpenAiJudge
from tests.contract.bad_inputs import valid_case
from tests.contract.fake_judge import Behaviour, Body, Drop, Say, fake_judge
from tests.contract.test_reward_answers import answering, send

_KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.rewards.check._BETWEEN_PROBES_S", 0.01)
    monkeypatch.setattr("orchestrator.rewards.check._MAY_TAKE_S", 0.5)


def _check(folder: Path, *argv: str) -> None:
    config, _ = load_config(["--algo", "stable_reinforce", *argv])
    check_rewards(config, RunFolder(folder / "run"))
    assert not (folder / "run").exists(), "a check leaves nothing behind"


def _refusal(folder: Path, *argv: str) -> str:
    with pytest.raises(RefusedInput) as refused:
        _check(folder, *argv)
    sentence = str(refused.value)
    assert "\n" not in sentence and _KEY not in sentence
    return sentence


def _judge(url: str, *more: str) -> list[str]:
    return ["--reward.judge", "openai", "--reward.judge_url", url, "--reward.judge_model", "m", *more]


def test_a_judge_that_answers_is_let_through(tmp_path: Path) -> None:
    with fake_judge(Body(b'{"error": {"message": "unknown argument: structured_outputs"}}', 400), Say("**1**")) as fake:
        _check(tmp_path, *_judge(fake.url))
        assert len(fake.requests) == 2


@pytest.mark.parametrize(
    ("behaviour", "told", "calls"),
    [
        (Body(b'{"error": {"message": "Incorrect API key: sk-very-secret"}}', 401), "Incorrect API key: ***", 1),
        (Say("I think they agree"), "answered 'I think they agree' instead of 0 or 1", 1),
        (Drop(), "cannot be reached", 3),
    ],
    ids=repr,
)
def test_a_judge_that_does_not_answer_is_refused_in_its_words(
    behaviour: Behaviour, told: str, calls: int, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(f"{_KEY}\n")
    with fake_judge(behaviour) as fake:
        sentence = _refusal(tmp_path, *_judge(fake.url, "--reward.judge_key_file", str(tmp_path / "key")))
        assert sentence.startswith("reward.judge does not serve: openai/m ") and told in sentence
        assert len(fake.requests) == calls


def test_the_command_line_ends_with_exit_code_2_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(online_run, "ray_cluster", lambda *_: pytest.fail("the cluster was started"))
    case = valid_case(tmp_path, build_digits_model(tmp_path / "model", seed=0))
    with fake_judge(Say("maybe")) as fake:
        case.extra = _judge(fake.url)
        assert main(case.argv()) == 2
    assert "refused: reward.judge does not serve: openai/m answered 'maybe'" in capfd.readouterr().err


Health = Callable[[BaseHTTPRequestHandler, list[dict[str, Any]]], None]


def _says(status: int, body: bytes = b"") -> Health:
    return lambda handler, _: send(handler, body, status=status)


@pytest.mark.parametrize("health", [None, _says(200), _says(200, b"<html>"), _says(405), _says(501), _says(302)])
def test_a_users_service_of_another_shape_is_let_through(health: Health | None, tmp_path: Path) -> None:
    with answering(_says(200, b"{}"), health=health) as (url, _):
        _check(tmp_path, "--reward.url", url)


def test_a_users_service_that_does_not_serve_is_refused_in_its_words(tmp_path: Path) -> None:
    down = json.dumps({"status": "judge_unavailable", "judge": "openai/m", "detail": "the judge sleeps"}).encode()
    for health, told in ((_says(503, down), "the judge sleeps"), (_says(401, b"who?"), "HTTP 401: who?")):
        with answering(_says(200, b"{}"), health=health) as (url, _):
            sentence = _refusal(tmp_path, "--reward.url", url)
            assert sentence.startswith(f"reward.url '{url}' does not serve: ") and told in sentence
    assert "ConnectError" in _refusal(tmp_path, "--reward.url", "http://127.0.0.1:9")


def test_a_service_of_ours_that_scores_by_other_rules_is_refused(tmp_path: Path) -> None:
    for scoring, other in (("strict", "compat"), ("compat", "strict")):
        body = json.dumps({"status": "ok", "judge": "rules", "scoring": scoring, "detail": None}).encode()
        with answering(_says(200, b"{}"), health=_says(200, body)) as (url, _):
            _check(tmp_path, "--reward.url", url, "--reward.scoring", scoring)
            told = f"reward.scoring = {other!r}, but reward.url scores by {scoring!r}"
            assert _refusal(tmp_path, "--reward.url", url, "--reward.scoring", other) == told


def test_a_users_service_may_need_a_moment(tmp_path: Path) -> None:
    turns = iter([503, 503, 200])
    with answering(_says(200, b"{}"), health=lambda handler, _: send(handler, b"", status=next(turns))) as (url, _):
        _check(tmp_path, "--reward.url", url)


def test_a_token_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    for content, told in ((b"\n", "should hold one line"), (b"a\nb", "should hold one line"), (b"\xff", "as text")):
        (tmp_path / "token").write_bytes(content)
        argv = ("--reward.url", "http://127.0.0.1:9", "--reward.token_file", str(tmp_path / "token"))
        assert told in _refusal(tmp_path, *argv)


def test_a_cache_that_cannot_serve_is_refused_by_name_also_one_in_the_run_folder(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.sqlite"
    file.write_text("no database, and long enough to be read as the header of one, or so one hopes")
    sentence = _refusal(tmp_path, "--reward.cache_path", str(file))
    assert sentence.startswith(f"reward.cache_path '{file}' cannot serve as a verdict cache: ")
    (tmp_path / "run").mkdir()
    with sqlite3.connect(tmp_path / "run" / "verdicts.sqlite") as other:
        other.execute("CREATE TABLE verdicts (judge TEXT)")
    other.close()
    config, _ = load_config(["--algo", "stable_reinforce"])
    with pytest.raises(RefusedInput, match="cannot serve as a verdict cache: no such column"):
        check_rewards(config, RunFolder(tmp_path / "run"))


def test_no_secret_stands_in_the_list_of_processes(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(_KEY)
    argv = _judge("http://h/v1", "--reward.judge_key_file", str(tmp_path / "key"))
    config, _ = load_config(["--algo", "stable_reinforce", *argv])
    arguments = service_arguments(config, RunFolder(tmp_path))
    assert not any(_KEY in argument for argument in arguments)
    assert arguments[arguments.index("--judge-key-file") + 1] == str(tmp_path / "key")


_LOOPBACK = ("127.0.0.1", "localhost")
_VARIABLES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense://x"])
@pytest.mark.parametrize("host", _LOOPBACK)
def test_loopback_is_reached_directly_whatever_proxy_variables_say(
    host: str, proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in _VARIABLES:
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with answering(_says(200, b"{}")) as (url, _):
        _check(tmp_path, "--reward.url", url.replace("127.0.0.1", host))
    with fake_judge(Say("1")) as fake:
        _probe(fake.url.replace("127.0.0.1", host))


def _probe(url: str) -> None:
    async def run() -> None:
        judge = OpenAiJudge(url, "m", timeout_s=5.0)
        await judge.probe()
        await judge.close()

    asyncio.run(run())


def test_another_address_is_reached_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def health(handler: BaseHTTPRequestHandler, _: list[dict[str, Any]]) -> None:
        seen.append(handler.path)
        send(handler, b"", status=200)

    for name in ("NO_PROXY", "no_proxy", "all_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with answering(_says(200, b"{}"), health=health) as (url, _):
        monkeypatch.setenv("http_proxy", url)
        _check(tmp_path, "--reward.url", "http://rewards.example/here/")
    assert seen == ["http://rewards.example/here/healthz"]
    with fake_judge(Say("1")) as fake:
        monkeypatch.setenv("http_proxy", fake.url.removesuffix("/v1"))
        _probe("http://judge.example/v1")
        assert len(fake.requests) == 1


def test_a_link_where_the_run_keeps_its_verdicts_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "run" / "verdicts.sqlite").symlink_to(tmp_path / "empty")
    config, _ = load_config(["--algo", "stable_reinforce"])
    with pytest.raises(RefusedInput, match=r"verdicts\.sqlite in it is a link"):
        check_rewards(config, RunFolder(tmp_path / "run"))
    assert (tmp_path / "empty").read_bytes() == b""


def test_a_proxy_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:9")
    assert "reward.url cannot be asked through the proxy" in _refusal(
        tmp_path, "--reward.url", "http://rewards.example"
    )
    with pytest.raises(ValueError, match="--judge-url cannot be asked through the proxy"):
        OpenAiJudge("http://judge.example/v1", "m", timeout_s=1.0)


@pytest.mark.parametrize(
    "proxy", ["http://us:pass/word@proxy:80", "http://proxy:port", "http://[::1", "ftp://u:pass@h"]
)
def test_nothing_is_said_of_a_proxy_that_is_no_address(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    told = r"cannot be asked through the proxy of the environment: it is no address$"
    with pytest.raises(ValueError, match=f"^--judge-url {told}"):
        OpenAiJudge("http://judge.example/v1", "m", timeout_s=1.0)
    with pytest.raises(RefusedInput, match=f"^reward.url {told}"):
        RewardClient(lambda _=None: "http://rewards.example", timeout_s=1.0, max_outage_s=1.0)
