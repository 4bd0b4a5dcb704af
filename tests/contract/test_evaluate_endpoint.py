"""A model at an endpoint on a benchmark, by HTTP: what it is asked, how its habits score, how its faults end."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluate import main
from orchestrator.evaluation.predictions import read_predictions
from tests.contract.fake_judge import Body, Depends, Drop, FakeJudge, Say, fake_judge
from tests.unit.evaluation.released_files import cell, jsonl, parquet, png, save, whole

_KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def _little_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.rewards.endpoint._LONGEST_WAIT_S", 0.02)


def _pairs(folder: Path, count: int) -> Path:
    """Half of them list the better response first."""
    rows = [
        {
            "id": f"mathverse_{i}",
            "query": f"question {i} ?",
            "response": ["good", "poor"] if i % 2 else ["poor", "good"],
            "human_ranking": [0, 1] if i % 2 else [1, 0],
            "image": cell(i),
        }
        for i in range(count)
    ]
    return parquet(folder / "v.parquet", *rows)


def _measure(name: str, fake: FakeJudge, data: Path, out: Path, *more: str) -> int:
    words = ["--benchmark", name, "--model", "served/m", "--endpoint", fake.url, "--data", str(data), "--out", str(out)]
    return main([*words, "--rollout.max_new_tokens", "64", "--reward.max_outage_s", "5", *more])


def _strict(out: Path) -> dict[str, float]:
    figures = json.loads((out / "scores.json").read_text())["ways"]["strict"]["figures"]
    return {name: one["value"] for name, one in figures.items()}


def _words(request: dict[str, Any]) -> str:
    content = request["messages"][0]["content"]
    return content if isinstance(content, str) else " ".join(p["text"] for p in content if p["type"] == "text")


def _judging(verdict: Callable[[str], str]) -> Depends:
    return Depends(lambda request: Say(verdict(_words(request))))


def _right(words: str) -> str:
    return f"<answer>{1 if words.index('good') < words.index('poor') else 2}</answer>"


def test_a_judge_that_always_says_one_scores_a_half_and_is_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_judge(Say("<answer>1</answer>")) as fake:
        assert _measure("vl_reward_bench", fake, _pairs(tmp_path, 10), tmp_path / "out") == 0
        assert len(fake.requests) == 20
    found = _strict(tmp_path / "out")
    assert (found["accuracy"], found["first_position"], found["unreadable"]) == (0.5, 1.0, 0.0)
    assert found["consistent"] == 0.0
    assert "served/m is asked as a model at an endpoint: --scorer endpoint" in capsys.readouterr().err


def test_nonsense_is_unreadable_and_looks_like_no_bias(tmp_path: Path) -> None:
    """Of every five questions two get words without a verdict, the others the right one."""

    def verdict(words: str) -> str:
        number = int(re.search(r"question (\d+)", words)[1])  # type: ignore[index]
        return "Both have their merits." if number % 5 < 2 else _right(words)

    with fake_judge(_judging(verdict)) as fake:
        assert _measure("vl_reward_bench", fake, _pairs(tmp_path, 10), tmp_path / "out") == 0
    found = _strict(tmp_path / "out")
    assert (found["unreadable"], found["first_position"]) == (0.4, 0.5)
    assert (found["accuracy"], found["accuracy_readable"]) == (0.6, 1.0)


def test_every_sample_has_a_seed_of_its_own_and_the_first_is_greedy(tmp_path: Path) -> None:
    more = ("--votes", "3", "--rollout.temperature", "0.7")
    with fake_judge(_judging(_right)) as fake:
        assert _measure("vl_reward_bench", fake, _pairs(tmp_path, 2), tmp_path / "out", *more) == 0
        first = sorted((r["seed"], r["temperature"]) for r in fake.requests)
        assert len({seed for seed, _ in first}) == len(first) == 2 * 2 * 4
        assert sorted(t for _, t in first) == [0.0] * 4 + [0.7] * 12
        assert {r["max_tokens"] for r in fake.requests} == {64}
        fake.requests.clear()
        assert _measure("vl_reward_bench", fake, _pairs(tmp_path, 2), tmp_path / "again", *more) == 0
        assert sorted((r["seed"], r["temperature"]) for r in fake.requests) == first
    assert _strict(tmp_path / "out")["accuracy"] == 1.0
    assert {p.finish_reason for p in read_predictions(tmp_path / "out" / "predictions.parquet")} == {"stop"}


def test_pictures_stand_where_they_stand_in_a_response(tmp_path: Path) -> None:
    row = {"pair_id": "p", "prompt_text": "draw it", "prompt_images": [], "chosen": "A"}
    row |= {"response_a_text": "so <image_1> and <image_2> done", "response_a_images": [cell(1), cell(2)]}
    file = parquet(tmp_path / "interleaved" / "t.parquet", {**row, "response_b_text": "no", "response_b_images": []})
    with fake_judge(Say("<answer>1</answer>")) as fake:
        assert _measure("multimodal_reward_bench_2", fake, file, tmp_path / "out", "--order", "one") == 0
        ((turn,),) = (request["messages"] for request in fake.requests)
    kinds = [part["type"] for part in turn["content"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"]
    assert turn["content"][0]["text"].endswith("so ") and turn["content"][2]["text"] == " and "
    sent = [base64.b64decode(p["image_url"]["url"].partition(",")[2]) for p in turn["content"] if "image_url" in p]
    assert len(sent) == 2 and sent[0] != sent[1]


def test_a_question_without_an_answer_is_asked_again_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def picky(request: dict[str, Any]) -> Say | Body:
        return Body(b'{"error": {"message": "no"}}', 403) if "question 1 " in _words(request) else Say("no verdict")

    file, out = _pairs(tmp_path, 3), tmp_path / "out"
    with fake_judge(Depends(picky)) as fake:
        assert _measure("vl_reward_bench", fake, file, out) == 0
        told = capsys.readouterr().out
        assert "2 questions have no answer" in told and "about row 2: served/m answered HTTP 403" in told
        failed = [p for p in read_predictions(out / "predictions.parquet") if p.status == "failed"]
        assert [(p.row, p.text) for p in failed] == [(2, ""), (2, "")]
        fake.behave(_judging(_right))
        fake.requests.clear()
        assert _measure("vl_reward_bench", fake, file, out) == 0
        assert len(fake.requests) == 2 and all("question 1 " in _words(r) for r in fake.requests)
    assert "have no answer" not in capsys.readouterr().out
    assert _strict(out)["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("status", [400, 403])
def test_questions_that_are_refused_for_good_are_told_and_stop_nothing(
    status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def filtered(request: dict[str, Any]) -> Say | Body:
        if "question 1 " in _words(request):
            return Body(b'{"error": {"message": "content filter"}}', status)
        return _judging(_right).on(request)

    file, out = _pairs(tmp_path, 3), tmp_path / "out"
    with fake_judge(Depends(filtered)) as fake:
        assert _measure("vl_reward_bench", fake, file, out) == 0
        first = capsys.readouterr().out
        assert _measure("vl_reward_bench", fake, file, out) == 0
        assert capsys.readouterr().out == first and "2 questions have no answer" in first
        # Whoever refuses everything has been measured on nothing.
        fake.behave(Body(b'{"error": {"message": "content filter"}}', status))
        assert _measure("vl_reward_bench", fake, file, tmp_path / "none") == 3
    assert f"stopped: none of 3 rows has an answer; about row 1: served/m answered HTTP {status}" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "none" / "scores.json").exists()


@pytest.mark.parametrize("trouble", [Drop(), Body(b"<html>bad gateway</html>", 502), Body(b"<html>hello</html>")])
def test_one_that_answers_nothing_stops_the_command_and_leaves_no_figure(
    trouble: Drop | Body, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_judge(trouble) as fake:
        more = ("--reward.max_outage_s", "0.3")
        assert _measure("vl_reward_bench", fake, _pairs(tmp_path, 2), tmp_path / "out", *more) == 3
    assert "stopped: the endpoint answered none of 4 questions: served/m " in capsys.readouterr().err
    assert not (tmp_path / "out" / "scores.json").exists()


def test_what_it_refuses_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def strict(request: dict[str, Any]) -> Say | Body:
        return Body(b'{"detail": "seed: extra inputs are not permitted"}', 422) if "seed" in request else Say("no")

    save(tmp_path / "a.png")
    file = jsonl(tmp_path / "p.json", {"question_id": 1, "image": "a.png", "text": "Is it ?", "label": "no"})
    with fake_judge(Depends(strict)) as fake:
        assert _measure("pope", fake, file, tmp_path / "out") == 0
        assert [sorted(r) for r in fake.requests] == [
            ["max_tokens", "messages", "model", "seed", "temperature"],
            ["max_tokens", "messages", "model", "temperature"],
        ]
        image, words = fake.requests[0]["messages"][0]["content"]
    assert words["text"].startswith("Is it ?") and image["type"] == "image_url"
    assert base64.b64decode(image["image_url"]["url"].partition(",")[2])[:4] == png(1)[:4]
    assert "the endpoint refuses seed: it is asked without" in capsys.readouterr().err
    assert _strict(tmp_path / "out")["accuracy"] == 1.0


def test_its_key_reaches_it_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "key"
    key.write_text(_KEY + "\n")
    with fake_judge(Body(json.dumps({"error": {"message": f"bad key {_KEY}"}}).encode(), 401)) as fake:
        more = ("--endpoint-key-file", str(key))
        assert _measure("vl_reward_bench", fake, _pairs(tmp_path, 1), tmp_path / "out", *more) == 3
    told = capsys.readouterr()
    assert "HTTP 401" in told.err and _KEY not in told.err + told.out
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or _KEY.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scorer", "endpoint"], "scorer = 'endpoint' and endpoint: give both for a model that is served"),
        (["--scorer", "scalar", "--endpoint", "http://h/v1"], "scorer = 'scalar' and endpoint: give both"),
        (["--endpoint", "h:8000"], "endpoint should start with http:// or https://"),
        (["--endpoint", "http://u:pass@h/v1"], "endpoint holds credentials"),
        (["--endpoint", "http://h/v1", "--endpoint-key-file", "none.txt"], "endpoint_key_file 'none.txt' cannot be"),
    ],
)
def test_addresses_that_are_none_are_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _pairs(tmp_path, 1)
    own = ["--benchmark", "vl_reward_bench", "--model", "m", "--data", str(file), "--out", str(tmp_path / "out")]
    assert main([*own, *words]) == 2
    told = capsys.readouterr().err
    assert message in told and "u:pass" not in told


def test_ratings_of_a_judge_that_may_write_less_are_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.png")
    row = {"question_type": "other", "question": "q", "gt_answer": "x", "image_content": ["x"], "image_path": "a.png"}
    file, out = whole(tmp_path / "h.json", [row]), tmp_path / "out"
    with fake_judge(Say("Rating: 6")) as fake:
        judge = ("--reward.judge_url", fake.url, "--reward.judge_model", "j")
        assert _measure("mmhal", fake, file, out, *judge) == 0
        assert _measure("mmhal", fake, file, out, *judge, "--reward.judge_max_new_tokens", "9") == 2
    assert "holds answers made with judge_max_new_tokens = " in capsys.readouterr().err


def test_nobody_serves_rewards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_judge(Say("1")) as fake:
        assert _measure("reward_bench_2", fake, tmp_path / "r.parquet", tmp_path / "out") == 2
    assert (
        "reward_bench_2 is of rewards, which only a reward model gives: scorer = 'endpoint'" in capsys.readouterr().err
    )
