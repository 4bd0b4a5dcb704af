"""An engine that shares its GPU goes through its states in one order, and in no other."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from workers.rollout.sleep import SleepCycle, loose_tensors
from workers.weight_sync.manifest import NameLedger, SyncError, WeightManifest

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


def _transfer(*names: str, full: bool, trained: tuple[str, ...] = ()) -> WeightManifest:
    told: dict[str, Any] = {"dtypes": (), "shapes": (), "num_bytes": 0, "policy_version": 3}
    return WeightManifest(digests=dict.fromkeys(names, ""), full=full, trained=trained, **told)


def test_a_sleeper_keeps_what_no_transfer_will_bring_again() -> None:
    frozen, whole = NameLedger(), NameLedger()
    assert whole.next_sets_all(), "the first transfer is a full one"
    frozen.check(_transfer("vision", "language", full=True, trained=("language",)))
    whole.check(_transfer("vision", "language", full=True, trained=("vision", "language")))
    assert not frozen.next_sets_all() and whole.next_sets_all()


@given(st.sets(st.sampled_from("abcdef"), min_size=1), st.data())
def test_a_tensor_that_is_lost_from_any_transfer_is_missed(trained: set[str], data: st.DataObject) -> None:
    ledger = NameLedger()
    ledger.check(_transfer(*"abcdefg", full=True, trained=tuple(trained)))
    if data.draw(st.booleans()):
        ledger.check(_transfer(*trained, full=False))
    lost = data.draw(st.sampled_from(sorted(trained)))
    with pytest.raises(SyncError, match=rf"weight transfer 3: 1 tensors not sent \['{lost}'\], 0 not expected"):
        ledger.check(_transfer(*(trained - {lost}), full=False))


class _Deep(nn.Module):
    """Holds tensors in every way that a model can."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(2, 3)
        self.register_buffer("table", torch.ones(2), persistent=False)
        # As vLLM's attention: the first is the cache's, the others are what is registered already.
        self.kv_cache = [torch.ones(1)]
        self.shortcut = [self.part.weight, self.table, self.part.weight.data[:1]]
        self.nothing = torch.empty(0)


def test_tensors_that_are_neither_parameters_nor_buffers_are_found() -> None:
    model: Any = _Deep()
    assert loose_tensors(model) == []
    # As vLLM's Qwen3-VL keeps what its tower adds to the first layers.
    model.deepstack_input_embeds = [torch.zeros(4), torch.zeros(4)]
    model.part.scales = {"k": (torch.ones(1),)}
    model.part.scale = torch.ones(2)
    assert loose_tensors(model) == ["deepstack_input_embeds", "part.scales", "part.scale"]
