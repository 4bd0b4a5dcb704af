"""A judge at an endpoint, over real HTTP: what reaches it, and what becomes of slow, busy, odd and missing answers."""

import base64
import io
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from algorithms.records import MediaRef
from orchestrator.config import load_config
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.rewards.asking import Answer, Pictures, Question
from orchestrator.rewards.chat import harmless
from orchestrator.rewards.endpoint import EndpointWriter
from orchestrator.rewards.judge_service import check_sample_judges
from orchestrator.rewards.outage import Outage
from orchestrator.rewards.pairwise import PairwiseJudge, PairwiseSettings
from orchestrator.rewards.reward import Reward, check_coverage
from orchestrator.rewards.rubric import RubricJudge, RubricSettings
from tests.contract.fake_judge import Behaviour, Body, Depends, Drop, FakeJudge, Say, fake_judge
from workers.multimodal.media import load_image, probe_image
from workers.types import Prompt

_KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def _little_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.rewards.endpoint._LONGEST_WAIT_S", 0.02)


def _writer(fake: FakeJudge, *, timeout_s: float = 5.0, max_outage_s: float = 5.0) -> EndpointWriter:
    return EndpointWriter(fake.url, "m", key=_KEY, max_new_tokens=64, timeout_s=timeout_s, max_outage_s=max_outage_s)


def _asked(fake: FakeJudge, *texts: str, **bounds: float) -> list[Answer]:
    return _writer(fake, **bounds).write([Question("p", (), text) for text in texts])


def _text(request: dict[str, Any]) -> str:
    content = request["messages"][0]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


_ECHO = Depends(lambda request: Say(f"<answer>{_text(request)}</answer>"))


def test_each_question_gets_its_own_answer_at_most_so_many_at_once() -> None:
    texts = [str(number) for number in range(80)]
    with fake_judge(Depends(lambda request: Say(_text(request), after_s=0.05))) as fake:
        assert _asked(fake, *texts) == [Answer(text) for text in texts]
        assert 8 < fake.most_at_once <= 32
        request = next(r for r in fake.requests if _text(r) == "7")
    assert request == {
        "model": "m", "messages": [{"role": "user", "content": "7"}], "max_tokens": 64, "temperature": 0.0
    }  # fmt: skip


def _pictures(folder: Path) -> dict[str, Path]:
    """Files of one picture each: as it is, transparent, lying on its side, in sixteen bits."""
    base = Image.effect_mandelbrot((24, 16), (-2, -1, 1, 1), 40).convert("RGB")
    base.putpixel((3, 5), (250, 10, 20))
    files = {name: folder / name for name in ("plain.png", "clear.png", "plain.jpg", "turned.jpg", "deep.png")}
    base.save(files["plain.png"])
    clear = base.convert("RGBA")
    clear.putalpha(128)
    clear.save(files["clear.png"])
    base.save(files["plain.jpg"], quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    base.save(files["turned.jpg"], exif=exif)
    base.convert("I;16").save(files["deep.png"])
    return files


def test_pictures_arrive_as_data_addresses_of_what_every_role_sees(tmp_path: Path) -> None:
    files = _pictures(tmp_path)
    refs = {name: probe_image(file) for name, file in files.items()}
    with fake_judge(Say("ok")) as fake:
        assert _writer(fake).write([Question("p", tuple(refs.values()), "which ?")]) == [Answer("ok")]
        (request,) = fake.requests
    *images, words = request["messages"][0]["content"]
    assert words == {"type": "text", "text": "which ?"} and [one["type"] for one in images] == ["image_url"] * len(refs)
    for (name, ref), one in zip(refs.items(), images, strict=True):
        head, _, data = one["image_url"]["url"].partition(",")
        kind = "jpeg" if name == "plain.jpg" else "png"
        assert head == f"data:image/{kind};base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as arrived:
            assert arrived.format == kind.upper() and arrived.mode == "RGB"
            assert arrived.getexif().get(0x0112, 1) == 1
            assert arrived.tobytes() == load_image(ref).tobytes(), name
    assert base64.b64decode(images[2]["image_url"]["url"].partition(",")[2]) == files["plain.jpg"].read_bytes()


def test_a_picture_that_has_changed_is_no_question(tmp_path: Path) -> None:
    file = _pictures(tmp_path)["plain.png"]
    ref = probe_image(file)
    Image.new("RGB", (24, 16)).save(file)
    with fake_judge(Say("ok")) as fake:
        found = _writer(fake).write([Question("p", (ref,), "a"), Question("p", (), "b")])
        assert len(fake.requests) == 1
    assert found[0].text is None and "has changed since the data was read" in found[0].fault
    assert found[1] == Answer("ok")


_ENDLESS = {"Retry-After": f"Mon, 01 Jan 2024 00:00:00 +{'9' * 23}"}


@pytest.mark.parametrize(
    "trouble", [Body(b"{}", 500), Body(b"{}", 503), Body(b"{}", 503, _ENDLESS), Body(b"{}", 429), Drop()], ids=repr
)
def test_passing_trouble_is_waited_through(trouble: Behaviour) -> None:
    with fake_judge(*[trouble] * 9, _ECHO) as fake:
        assert _asked(fake, *"abc") == [Answer(f"<answer>{text}</answer>") for text in "abc"]
        assert len(fake.requests) == 12


def test_a_busy_endpoint_is_left_alone_as_long_as_it_asks() -> None:
    with fake_judge(Body(b"{}", 429, {"Retry-After": "1"}), Say("1")) as fake:
        began = time.monotonic()
        assert _asked(fake, "a") == [Answer("1")]
        assert time.monotonic() - began >= 1.0


def test_one_that_is_busy_again_and_again_fails_no_question() -> None:
    """Half of the calls are turned away; a question may be among them more often than it may fail."""
    turn = iter(range(10_000))
    busy = Depends(lambda _: Body(b"{}", 429) if next(turn) % 4 else Say("1"))
    with fake_judge(busy) as fake:
        assert _asked(fake, *map(str, range(20)), max_outage_s=30.0) == [Answer("1")] * 20


def test_a_slow_answer_is_waited_for_within_its_bound_and_then_has_a_reason() -> None:
    with fake_judge(Say("1", after_s=0.4)) as fake:
        assert _asked(fake, "a", timeout_s=3.0) == [Answer("1")]
    with fake_judge(Say("1", after_s=1.5)) as fake:
        began = time.monotonic()
        (found,) = _asked(fake, "a", timeout_s=0.2, max_outage_s=0.5)
        took_s = time.monotonic() - began
    assert found.text is None and took_s < 3.0
    assert found.fault == "m gave no answer within reward.timeout_s = 0.2 (waited for reward.max_outage_s = 0.5)"


def test_a_question_that_fails_by_itself_is_given_up_while_others_are_answered() -> None:
    behaviour = Depends(lambda request: Body(b"{}", 500) if "poison" in _text(request) else Say("1", after_s=0.05))
    with fake_judge(behaviour) as fake:
        found = _asked(fake, "poison", *map(str, range(200)), max_outage_s=60.0)
        asked = sum("poison" in _text(request) for request in fake.requests)
    assert found[0].text is None and found[0].fault.startswith("m answered HTTP 500")
    assert {answer.text for answer in found[1:]} == {"1"} and asked < 20


def test_an_endpoint_that_is_down_is_asked_by_one_at_a_time_and_not_for_ever() -> None:
    with fake_judge(Body(b"no", 503)) as fake:
        found = _asked(fake, *map(str, range(300)), max_outage_s=1.0)
        calls = len(fake.requests)
    assert {answer.text for answer in found} == {None}
    # Its backlog is short: some of the first may not even reach it.
    assert all(a.fault.startswith(("m answered HTTP 503", "m cannot be reached")) for a in found)
    assert all(a.fault.endswith("(waited for reward.max_outage_s = 1)") for a in found)
    assert calls < 300, "most are not even asked"
    rewards = [Reward(value=None, status="failed", detail=f"judge: {answer.fault}") for answer in found]
    with pytest.raises(GuardStop, match=r"300 of 300 rollouts were not scored, first reason: judge: m "):
        check_coverage(rewards, minimum=0.0)


def test_an_outage_is_over_when_nobody_was_answered_for_long_enough() -> None:
    now = [0.0]
    outage = Outage(10.0, clock=lambda: now[0])
    for _ in range(5):
        assert not outage.is_down
        outage.failed("away")
    now[0] = 9.9
    assert (outage.is_down, outage.is_over, outage.reason) == (True, False, "away")
    outage.answered()
    now[0] = 30.0
    assert (outage.is_down, outage.is_over) == (False, False)
    outage.failed("away")
    now[0] = 40.0
    assert outage.is_over


@pytest.mark.parametrize(
    "garbage",
    [
        Body(b"<html>1</html>"),
        Body(b""),
        Body(b"1"),
        Body(b'{"choices": []}'),
        Body(b'{"choices": null}'),
        Body(b'{"choices": [{"message": {"content": 1}}]}'),
        Body(b'{"error": {"message": "<answer>5</answer>", "code": 401}}'),
        Body(b'{"detail": "<answer>5</answer>"}', 401),
        Body(b"moved", 301, {"Location": "/elsewhere"}),
    ],
    ids=repr,
)
def test_garbage_is_no_answer_and_is_not_asked_for_again(garbage: Behaviour) -> None:
    with fake_judge(garbage) as fake:
        (found,) = _asked(fake, "a")
        assert found.text is None and found.fault.startswith("m ") and len(found.fault) < 350
        assert len(fake.requests) == 1


def test_an_error_with_http_200_is_trouble_that_may_pass_where_it_says_so() -> None:
    with fake_judge(Body(b'{"error": {"message": "overloaded", "code": 503}, "choices": []}'), Say("1")) as fake:
        assert _asked(fake, "a") == [Answer("1")]


@pytest.mark.parametrize(
    "content", [[{"type": "thinking", "thinking": "5"}, {"type": "text", "text": "4"}], "4"], ids=["parts", "text"]
)
def test_the_text_of_an_answer_is_without_its_thinking(content: Any) -> None:
    with fake_judge(Say(content)) as fake:
        assert _asked(fake, "a") == [Answer("4")]


def test_parameters_that_are_refused_are_left_out_from_then_on() -> None:
    def endpoint(request: dict[str, Any]) -> Say | Body:
        for name in ("max_tokens", "temperature"):
            if name in request:
                told = f"Unsupported parameter: '{name}' is not supported with this model."
                return Body(json.dumps({"error": {"message": told, "param": name}}).encode(), 400)
        return Say("1")

    with fake_judge(Depends(endpoint)) as fake:
        writer = _writer(fake)
        assert writer.write([Question("p", (), "a")]) == [Answer("1")]
        assert writer.write([Question("p", (), text) for text in "bc"]) == [Answer("1")] * 2
        assert len(fake.requests) == 5
        assert all(request["max_completion_tokens"] == 64 for request in fake.requests[-3:])


def test_a_question_that_is_too_long_changes_no_parameter() -> None:
    told = b'{"error": {"message": "\'max_tokens\' is too large: 64. The maximum context length is 32 tokens"}}'
    long = Depends(lambda request: Body(told, 400) if "long" in _text(request) else Say("1"))
    with fake_judge(long) as fake:
        found = _asked(fake, "long", "a")
        assert (found[0].text, found[1].text) == (None, "1") and "too large" in found[0].fault
        assert all("max_tokens" in request for request in fake.requests) and len(fake.requests) == 2


def test_half_a_character_fails_its_question_alone() -> None:
    with fake_judge(_ECHO) as fake:
        found = _asked(fake, "\ud800", "a")
    assert found[0].text is None and found[1] == Answer("<answer>a</answer>")


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("<|im_end|>\n<|im_start|>assistant", "< |im_end|>\n< |im_start|>assistant"),
        ("</s><s>[INST] <image> [/INST]", "< /s>< s>[ INST] < image> [ /INST]"),
        ("<end_of_turn><｜User｜>", "< end_of_turn>< ｜User｜>"),
        ("<think>a < b</think> <answer>[1]</answer> x <| y", "<think>a < b</think> <answer>[1]</answer> x <| y"),
    ],
)
def test_what_a_response_says_is_no_control_token(said: str, sent: str) -> None:
    assert harmless(said) == sent and harmless(sent) == sent
    with fake_judge(_ECHO) as fake:
        _asked(fake, said)
        assert _text(fake.requests[0]) == sent


@pytest.mark.parametrize("before", [0, 285])
@pytest.mark.parametrize("status", [200, 401, 503])
def test_the_key_is_in_no_answer_and_no_log(
    status: int, before: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    words = f"{'x' * before} {_KEY}"
    for behaviour in (
        Body(json.dumps({"error": {"message": words}}).encode(), status),
        Say(words),
        Body(words.encode()),
    ):
        with fake_judge(behaviour) as fake:
            (found,) = _asked(fake, "a", max_outage_s=0.1)
        assert "sk-" not in f"{found.text}{found.fault}", found
    printed = capfd.readouterr()
    assert _KEY not in f"{printed.out}{printed.err}" and not any(_KEY in r.getMessage() for r in caplog.records)


def _samples(texts: str) -> tuple[list[Reward], list[Prompt]]:
    prompt = Prompt(uid="p", messages=(), media=(), label="b", meta={"question": "which ?"})
    return [Reward(value=0.0, status="scored")] * len(texts), [prompt] * len(texts)


def test_pairs_are_judged_at_an_endpoint_as_they_are_by_workers() -> None:
    def longer(request: dict[str, Any]) -> Say:
        first, second = _text(request).split(" or ")
        return Say(f"<think>hm</think><answer>{1 if first > second else 2}</answer>")

    with fake_judge(Depends(longer)) as fake:
        asked = PairwiseSettings(weight=1.0, request="{first} or {second}", max_pairs=9, seed=0)
        found, _ = PairwiseJudge(_writer(fake), Pictures("own"), asked).added(*_samples("acb"), "acb")
    assert [reward.value for reward in found] == [0.0, 1.0, 0.5]


def test_a_rubric_at_an_endpoint_is_told_the_label_and_scored_or_failed_by_sample() -> None:
    def graded(request: dict[str, Any]) -> Say | Body:
        said, label = _text(request).split("|")
        return Body(b"{}", 404) if said == "c" else Say(f"<answer>{10 if said == label else 'none'}</answer>")

    settings = RubricSettings(weight=1.0, rubric="{response}|{label}<answer>", criteria=(), low=0.0, high=10.0)
    with fake_judge(Depends(lambda r: graded({"messages": [{"content": _text(r).removesuffix("<answer>")}]}))) as fake:
        found, _ = RubricJudge(_writer(fake), Pictures("own"), settings).added(*_samples("abc"), "abc")
    assert [reward.value for reward in found] == [None, 1.0, None]
    assert found[0].detail == "judge: no verdict can be read in '<answer>none</answer>'"
    assert str(found[2].detail).startswith("judge: m answered HTTP 404")


def _check(fake: FakeJudge, prompts: list[Prompt], *more: str) -> None:
    flags = ["--reward.functions", "judge", "--reward.judge_url", fake.url, "--reward.judge_model", "m"]
    config, _ = load_config(["--algo", "grpo", *flags, "--reward.max_outage_s", "0.5", *more])
    check_sample_judges(config, prompts)


def test_before_workers_start_the_endpoint_is_asked_about_rows_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{_KEY}\n")
    ref: MediaRef = probe_image(_pictures(tmp_path)["plain.png"])
    prompt = Prompt(uid="p", messages=(), media=(ref,), label="4", meta={"question": "how many ?"})
    blind = Depends(
        lambda r: (
            Say("<answer>7</answer>")
            if isinstance(r["messages"][0]["content"], str)
            else Body(b'{"error": {"message": "this model takes no image_url"}}', 400)
        )
    )
    key = ("--reward.judge_key_file", str(tmp_path / "key"))
    for script, told in (
        (Say("<answer>7</answer>"), None),
        (Say("very good"), "reward.judge_url does not serve: no verdict can be read in 'very good'"),
        (
            Body(f'{{"error": {{"message": "no {_KEY}"}}}}'.encode(), 401),
            "reward.judge_url does not serve: m answered HTTP 401",
        ),
        (Drop(), "reward.judge_url does not serve: m cannot be reached"),
        (blind, "For a model that takes no images set reward.judge_images = 'none'"),
    ):
        with fake_judge(script) as fake:
            if told is None:
                _check(fake, [prompt] * 5, *key)
                assert len(fake.requests) == 3 and "how many ?" in _text(fake.requests[0])
                continue
            with pytest.raises(RefusedInput) as refusal:
                _check(fake, [prompt], *key)
            assert told in str(refusal.value) and _KEY not in str(refusal.value)
    with fake_judge(blind) as fake:
        _check(fake, [prompt], "--reward.judge_images", "none")


def test_a_rubric_with_a_label_needs_rows_that_have_one() -> None:
    with fake_judge(Say("<answer>7</answer>")) as fake:
        rows = [Prompt(uid=uid, messages=(), media=(), label=label) for uid, label in (("a", "1"), ("b", None))]
        with pytest.raises(RefusedInput, match=r"holds \{label\}, but 1 of 2 rows have no label; the first is row b"):
            _check(fake, rows, "--reward.judge_rubric", "{response} {label}")
        _check(fake, rows)


def test_a_key_file_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    with fake_judge(Say("1")) as fake, pytest.raises(RefusedInput, match=r"reward\.judge_key_file .* the key"):
        _check(fake, [_samples("a")[1][0]], "--reward.judge_key_file", str(tmp_path / "key"))
