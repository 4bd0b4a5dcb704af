"""A step cache stays within its bytes and forgets what a step has not used."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.multimodal.step_cache import StepCache


@pytest.fixture
def made() -> list[str]:
    return []


def _maker(made: list[str], digest: str) -> Callable[[], bytes]:
    return lambda: made.append(digest) or b"xx"


def test_the_least_recently_used_leaves_when_bytes_run_out(made: list[str]) -> None:
    cache = StepCache[bytes](4, num_bytes=len)
    for digest in ("red", "green", "red", "blue", "red", "green"):  # blue takes the place of green, the older of two
        cache.get(digest, _maker(made, digest))
    assert made == ["red", "green", "blue", "green"]
    assert (len(cache), cache.num_bytes) == (2, 4)


def test_a_value_above_the_bound_stays_until_the_next(made: list[str]) -> None:
    cache = StepCache[bytes](1, num_bytes=len)
    for digest in ("a", "a", "b", "a"):
        cache.get(digest, _maker(made, digest))
    assert made == ["a", "b", "a"]


def test_what_was_not_asked_for_since_the_last_time_is_forgotten(made: list[str]) -> None:
    cache = StepCache[bytes](100, num_bytes=len)
    for digest in ("a", "b"):
        cache.get(digest, _maker(made, digest))
    cache.forget_untouched()
    cache.get("b", _maker(made, "b"))
    cache.forget_untouched()
    cache.get("a", _maker(made, "a"))
    assert made == ["a", "b", "a"]
    assert cache.num_bytes == 4


@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.integers(1, 9))
def test_the_bytes_counted_are_those_held(asked: list[str], bound: int) -> None:
    cache = StepCache[bytes](bound, num_bytes=len)
    for digest in asked:
        if digest == "f":
            cache.forget_untouched()
        size = "abcdef".index(digest) + 1
        assert cache.get(digest, lambda size=size: bytes(size)) == bytes(size)
        assert cache.num_bytes == sum(len(v) for v in cache._values.values())
        assert cache.num_bytes <= bound or len(cache) == 1
