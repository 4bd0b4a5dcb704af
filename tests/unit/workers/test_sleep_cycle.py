"""An engine that shares its GPU goes through its states in one order, and in no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.rollout.sleep import SleepCycle

_ALLOWED = {
    ("awake", "sleep"): "asleep",
    ("asleep", "sleep"): "asleep",
    ("asleep", "wake_weights"): "loading",
    ("awake", "wake_weights"): "awake",
    ("loading", "wake_weights"): "loading",
    ("loading", "wake_cache"): "awake",
    ("awake", "wake_cache"): "awake",
}


@given(st.lists(st.sampled_from(["sleep", "wake_weights", "wake_cache"])))
def test_every_walk_follows_the_table_or_is_refused_where_it_leaves_it(steps: list[str]) -> None:
    cycle = SleepCycle("awake")
    for step in steps:
        before = cycle.state
        expected = _ALLOWED.get((before, step))
        if expected is None:
            with pytest.raises(RuntimeError, match=f"an engine that is {before} cannot"):
                getattr(cycle, step)()
            assert cycle.state == before
            return
        assert getattr(cycle, step)() == (expected != before)
        assert cycle.state == expected


def test_a_sleeping_engine_does_not_sample() -> None:
    cycle = SleepCycle("asleep")
    with pytest.raises(RuntimeError, match="an engine that is asleep cannot sample; it must be awake"):
        cycle.require("awake", "sample")
