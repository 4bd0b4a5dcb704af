"""``reward.functions``: what somebody's code does to a run is a counted status, and nothing of it is left running."""

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from orchestrator.config import load_config
from orchestrator.errors import RefusedInput
from orchestrator.rewards.check import check_rewards
from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.replies import read_rewards
from orchestrator.rewards.reward import RewardItem
from orchestrator.run.folder import RunFolder
from orchestrator.run.rollout_store import OWN_COLUMNS
from remote_rm.app import create_app
from remote_rm.functions.pool import Bounds, FunctionPool
from remote_rm.functions.spec import TAKEN, function_specs
from remote_rm.judges.rules import RulesJudge
from tests.contract.service import in_process, serving

FILE = f"{Path(__file__).with_name('reward_functions.py')}"
_BOUNDS = Bounds(workers=2, deadline_s=1.5, memory_gib=2.0)


def _scored(functions: Sequence[str], items: Sequence[dict[str, Any]], *, roots: tuple[Path, ...] = ()) -> Any:
    async def run() -> Any:
        pool = FunctionPool(function_specs(functions), _BOUNDS)
        async with in_process(create_app(RulesJudge(), None, functions=pool, media_roots=roots)) as client:
            return (await client.post("/v1/rewards", json={"request_id": "r", "items": list(items)})).json()

    return asyncio.run(run())


def _item(name: str, response: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "prompt": "?", "response": response, "label": None, **fields}


def _running(words: str) -> list[str]:
    """Of this test's process, and of what has lost its parent."""
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    found = [p for p in psutil.process_iter(["pid", "ppid", "cmdline"]) if p.info["pid"] in ours or p.info["ppid"] == 1]
    return [line for p in found if words in (line := " ".join(p.info["cmdline"] or ()))]


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("raise", "RuntimeError: boom of two lines"),
        ("hang", "it gave no answer within 1.5 s"),
        ("eat", "MemoryError"),
        ("exit", "SystemExit: 3"),
        ("os_exit", "its process ended with exit code 4"),
        ("nan", "ValueError: it returned nan, expected a finite number"),
        ("huge", "ValueError: it returned 1e+300, expected a finite number"),
        ("text", "TypeError: it returned the text '1', expected a number"),
        ("list", "TypeError: it returned a list, expected a number"),
    ],
)
def test_what_a_function_does_is_a_failed_reward_with_its_reason(does: str, told: str) -> None:
    reply = _scored([f"{FILE}:misbehaving", "format"], [_item("bad", does), _item("good", "fine")])
    bad, good = reply["items"]
    assert (bad["reward"], bad["status"], bad["detail"]) == (None, "failed", f"misbehaving: {told}")
    assert bad["is_final"], "nobody asks a second time"
    assert (good["reward"], good["status"]) == (0.5, "scored")
    assert not _running("remote_rm.functions.child") and not _running("sleep 987654")


def test_who_leaves_its_session_and_keeps_the_pipe_holds_nobody_up() -> None:
    began = time.monotonic()
    reply = _scored([f"{FILE}:misbehaving"], [_item("bad", "leave"), *(_item(f"s{i}", "fine") for i in range(4))])
    assert [one["status"] for one in reply["items"]] == ["failed", *["scored"] * 4]
    assert time.monotonic() - began < 15
    (left,) = (
        p for p in psutil.process_iter(["pid", "cmdline"]) if "sleep 31.4159" in " ".join(p.info["cmdline"] or ())
    )
    left.kill()  # nobody's child here; the service's own process would have adopted it


def test_the_service_ends_what_a_function_left_running() -> None:
    with serving("--functions", f"{FILE}:misbehaving", "--function-timeout-s", "1.5") as (url, process):
        body = {"request_id": "r", "items": [_item("bad", "leave"), _item("good", "fine")]}
        (bad, good) = httpx.post(f"{url}/v1/rewards", json=body, timeout=30).json()["items"]
        assert (bad["status"], good["reward"]) == ("failed", 0.5)
        assert not [p for p in psutil.Process(process.pid).children(recursive=True) if "sleep" in p.name()]


def test_a_copy_of_the_process_answers_for_nobody() -> None:
    reply = _scored([f"{FILE}:misbehaving"], [_item(f"f{i}", "fork") for i in range(3)] + [_item("good", "fine")])
    assert [one["reward"] for one in reply["items"]] == [0.5] * 4


def test_a_function_is_told_why_each_completion_ended() -> None:
    items = [
        _item("a", "Is it?", group="p", finish_reason="stop"),
        _item("b", "It is", group="p", finish_reason="length"),
        _item("c", "Yes", group="q", finish_reason="abort"),
    ]
    found = _scored(["unfinished?weight=8", f"{FILE}:ended"], items)["items"]
    # A question mark is no reason: the one that came to its end of turn has finished.
    assert [one["parts"] for one in found] == [
        {"unfinished": 0.0, "ended": 1.0},
        {"unfinished": -1.0, "ended": 1.0},
        {"unfinished": -1.0, "ended": 0.0},
    ]
    assert [one["reward"] for one in found] == [1.0, -7.0, -8.0]


@pytest.mark.parametrize("function", ["unfinished", f"{FILE}:ended"])
def test_nobody_makes_up_why_a_completion_ended(function: str) -> None:
    (one,) = _scored([function], [_item("a", "x")])["items"]
    assert (one["reward"], one["status"]) == (None, "failed")
    assert one["detail"].endswith("ValueError: nobody has said why the completion ended")


def test_a_row_without_an_answer_is_told_by_the_other_parts_alone() -> None:
    functions = ["correctness", "length_cost?longest=10&weight=10"]
    items = [
        _item("general", "A cat.", length=5, row={"length_bonus": 0.5}),
        _item("choice", "A. A cat.", label="A", length=5),
    ]
    general, choice = _scored(functions, items)["items"]
    assert (general["reward"], general["parts"]) == (-2.5, {"correctness": None, "length_cost": -0.25})
    assert (choice["reward"], choice["parts"]) == (-3.0, {"correctness": 2.0, "length_cost": -0.5})


def test_many_slow_calls_wait_their_turn() -> None:
    reply = _scored([f"{FILE}:steady"], [_item(f"s{i}", "x") for i in range(24)])
    assert {one["status"] for one in reply["items"]} == {"scored"}


def test_names_of_columns_are_refused_as_names_of_parts() -> None:
    assert set(TAKEN) >= OWN_COLUMNS | {"mean", "pairwise", "critique"}
    with pytest.raises(ValueError, match="a part cannot be called 'reward'"):
        function_specs([f"{FILE}:misbehaving?name=reward"])


def test_options_are_what_their_annotations_say() -> None:
    found = _scored([f"{FILE}:optional?strict=false&most=3"], [_item("a", "x")])
    assert found["items"][0]["reward"] == 3.0


def test_too_many_values_fail_the_group_they_are_for_alone() -> None:
    items = [_item("a", "x", group="one"), _item("b", "yy", group="one"), _item("c", "z", group="two")]
    reply = _scored([f"{FILE}:too_many"], items)
    assert [one["detail"] for one in reply["items"]] == [
        "too_many: ValueError: it returned 3 values for 2 completions",
        "too_many: ValueError: it returned 3 values for 2 completions",
        "too_many: ValueError: it returned 2 values for 1 completions",
    ]


def test_the_slow_tenth_of_the_samples_fails_and_the_rest_is_scored() -> None:
    reply = _scored([f"{FILE}:slow"], [_item(f"s{i}", f"{i}") for i in range(40)])
    failed = [one["id"] for one in reply["items"] if one["status"] == "failed"]
    assert failed == ["s0", "s10", "s20", "s30"]
    assert all(one["reward"] == 1.0 for one in reply["items"] if one["id"] not in failed)


def test_a_reward_is_the_weighted_sum_of_its_named_parts() -> None:
    functions = [f"{FILE}:misbehaving?weight=2&name=odd", f"{FILE}:shortest?weight=0.5", "number?tolerance=0.05"]
    items = [
        _item("a", "truth 7.2", group="p", label="7"),
        _item("b", "nothing", group="p", label="7"),
        _item("c", "nothing 9", group="q", label="9"),
    ]
    reply = _scored(functions, items)
    assert reply["weights"] == {"odd": 2.0, "shortest": 0.5, "number": 1.0}
    assert [one["parts"] for one in reply["items"]] == [
        {"odd": 0.5, "shortest": 0.0, "number": 1.0},
        {"odd": None, "shortest": 1.0, "number": 0.0},
        {"odd": 0.5, "shortest": 1.0, "number": 1.0},
    ]
    assert [one["reward"] for one in reply["items"]] == [2.0, 0.5, 2.5]


def test_the_driver_knows_what_each_part_adds() -> None:
    item = RewardItem(uid="p", sample_index=0, prompt="?", response="7", label="7", media=())
    with serving("--functions", "number?weight=3", f"{FILE}:misbehaving?weight=-1") as (url, _):
        client = RewardClient(lambda _=None: url, timeout_s=30.0, max_outage_s=5.0, group_size=1)
        reward = client.post([item]).result()["p/0"]
        scoring = client.health().scoring
        client.close()
    assert (reward.value, reward.weights) == (2.5, {"number": 3.0, "misbehaving": -1.0})
    assert scoring == "functions"


def test_a_function_is_given_the_picture_the_label_the_row_and_its_options(tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    Image.new("RGB", (8, 8), (200, 10, 10)).save(file)
    media = [{"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "path": str(file)}]
    item = _item("a", "yes", label="yes", media=media, row={"worth": 4})
    (inside,) = _scored([f"{FILE}:reddish?bonus=0.5"], [item], roots=(tmp_path,))["items"]
    (outside,) = _scored([f"{FILE}:reddish"], [item], roots=(tmp_path / "elsewhere",))["items"]
    assert inside["reward"] == 4.5
    assert "no file that may be read here" in outside["detail"]
    os.mkfifo(tmp_path / "pipe")
    item["media"] = [media[0] | {"path": str(tmp_path / "pipe")}]
    (piped,) = _scored([f"{FILE}:reddish"], [item], roots=(tmp_path,))["items"]
    assert "no file that may be read here" in piped["detail"]


@pytest.mark.parametrize(
    ("functions", "told"),
    [
        (["nosuch"], "expected FILE.py:NAME or one of format, "),
        (["gone.py:score"], "'gone.py' is not a file"),
        ([f"{FILE}:gone"], "reward_functions.py:gone is no function"),
        ([f"{FILE}:unfilled"], "takes nobody_gives_this, which nobody gives it"),
        (["number?tolerance=wide"], "tolerance = 'wide' is not of the kind float"),
        (["number?colour=red"], "takes no option 'colour'"),
        (["number?weight=nan"], "weight = 'nan' is no number"),
        (["number", "number?weight=2"], "'number' is there twice"),
        (["number?name=mean"], "a part cannot be called 'mean'"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_starts(
    functions: list[str], told: str, tmp_path: Path
) -> None:
    config, _ = load_config(["--algo", "grpo", "--reward.functions", *functions])
    with pytest.raises(RefusedInput, match=r"^reward\.functions") as refusal:
        check_rewards(config, RunFolder(tmp_path / "run"))
    assert told in str(refusal.value) and "\n" not in str(refusal.value)


def test_samples_that_are_compared_are_asked_about_together() -> None:
    items = [
        RewardItem(uid=f"p{p}", sample_index=s, prompt="?", response="x" * (1 + s), label=None, media=(), group=f"p{p}")
        for s in range(3)
        for p in range(40)
    ]
    with serving("--functions", f"{FILE}:shortest") as (url, _):
        client = RewardClient(lambda _=None: url, timeout_s=30.0, max_outage_s=5.0, group_size=3)
        stream = client.open_stream()
        for item in items:  # of one prompt they come far apart
            stream.add(item)
        rewards = stream.results()
        client.close()
    assert [rewards[item.id].value for item in items] == [1.0] * 40 + [0.0] * 80


def test_weights_of_a_service_that_tells_nonsense_are_none() -> None:
    body = b'{"weights": {"a": "much"}, "items": [{"id": "x", "reward": 1.0, "status": "scored", "parts": {"a": 1.0}}]}'
    assert read_rewards(body, ["x"])["x"].weights == {}
