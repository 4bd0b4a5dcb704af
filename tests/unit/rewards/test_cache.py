"""Critiques and rewards by content: bit by bit, the first answer stays, and several processes use one file."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.rewards.critique_judge import CritiqueCache, CritiqueReward, checked, content_key

MESSAGES = ({"role": "user", "content": [{"type": "text", "text": "which ?"}]},)


def _ok(reward: float | None, critique: str = "right .") -> CritiqueReward:
    return CritiqueReward(reward=reward, critique=critique, num_tokens=3, status="ok")


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_reward_comes_back_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    reward, status = checked(value)
    answer = CritiqueReward(reward=reward, critique="right .", num_tokens=3, status=status)
    with CritiqueCache(tmp_path_factory.mktemp("cache") / "c.sqlite") as cache:
        cache.put({"k": answer})
        found = cache.get(["k"])["k"]
    assert found == answer and found.reward is not None and reward is not None
    bits = [np.float32(x).tobytes() for x in (reward, found.reward)]
    assert bits[0] == bits[1]
    # A zero has no sign, so that a fresh answer and a known one are the same.
    assert bits[0] == np.float32(value + 0.0).tobytes()


@pytest.mark.parametrize("status", ["cut", "too_long", "not_finite"])
def test_no_reward_comes_back_as_none(tmp_path: Path, status: str) -> None:
    answer = CritiqueReward(reward=None, critique="", num_tokens=0, status=status)  # type: ignore[arg-type]
    with CritiqueCache(tmp_path / "c.sqlite") as cache:
        cache.put({"k": answer})
        assert cache.get(["k", "unknown"]) == {"k": answer}


def test_another_thread_than_opened_it_may_ask(tmp_path: Path) -> None:
    with CritiqueCache(tmp_path / "c.sqlite") as cache, ThreadPoolExecutor(1) as thread:
        thread.submit(cache.put, {"k": _ok(1.0)}).result()
        assert thread.submit(cache.get, ["k"]).result() == {"k": _ok(1.0)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_no_reward(value: float) -> None:
    assert checked(value) == (None, "not_finite")


def test_of_two_that_have_one_file_the_first_answer_stays(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "c.sqlite"
    with CritiqueCache(path) as first, CritiqueCache(path) as second:
        first.put({"k": _ok(1.0)})
        second.put({"k": _ok(2.0), "l": _ok(3.0)})
        assert first.get(["k", "l"]) == second.get(["k", "l"]) == {"k": _ok(1.0), "l": _ok(3.0)}
    with CritiqueCache(path) as again:
        assert again.get(["k"]) == {"k": _ok(1.0)}


_WRITER = """
import sys
from pathlib import Path
from orchestrator.rewards.critique_judge import CritiqueCache, CritiqueReward
with CritiqueCache(Path(sys.argv[1])) as cache:
    for i in range(200):
        cache.put({str(i): CritiqueReward(reward=float(i), critique=sys.argv[2], num_tokens=1, status="ok")})
"""


def test_processes_write_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name]) for name in ("one", "two")]
    assert [writer.wait(timeout=600) for writer in writers] == [0, 0]
    with CritiqueCache(path) as cache:
        found = cache.get(map(str, range(200)))
    assert [found[str(i)].reward for i in range(200)] == list(range(200))
    assert {answer.critique for answer in found.values()} <= {"one", "two"}


def test_everything_a_reward_depends_on_makes_another_key() -> None:
    key = content_key("model", MESSAGES, ["a", "b"], "it is one .")
    other_words = ({"role": "user", "content": [{"type": "text", "text": "which one ?"}]},)
    others = [
        content_key("other", MESSAGES, ["a", "b"], "it is one ."),
        content_key("model", other_words, ["a", "b"], "it is one ."),
        content_key("model", MESSAGES, ["b", "a"], "it is one ."),
        content_key("model", MESSAGES, ["a"], "it is one ."),
        content_key("model", MESSAGES, ["a", "b"], "it is two ."),
    ]
    assert len({key, *others}) == 1 + len(others)
    assert key == content_key("model", MESSAGES, ["a", "b"], "it is one .")
