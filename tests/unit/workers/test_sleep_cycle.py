"""An engine that shares its GPU goes through its states in one order, and in no other."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.rollout.sleep import SleepCycle
from workers.weight_sync.manifest import NameLedger, WeightManifest

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


def test_a_sleeper_keeps_what_no_transfer_will_bring_again() -> None:
    def transfer(*names: str, full: bool) -> WeightManifest:
        told: dict[str, Any] = {"dtypes": (), "shapes": (), "num_bytes": 0, "policy_version": 0}
        return WeightManifest(digests=dict.fromkeys(names, ""), full=full, **told)

    ledger = NameLedger()
    assert ledger.next_sets_all(), "the first transfer is a full one"
    ledger.check(transfer("vision", "language", full=True))
    assert not ledger.next_sets_all(), "not known yet"
    frozen, whole = NameLedger(), ledger
    frozen.check(transfer("vision", "language", full=True))
    frozen.check(transfer("language", full=False))
    whole.check(transfer("vision", "language", full=False))
    assert not frozen.next_sets_all() and whole.next_sets_all()
