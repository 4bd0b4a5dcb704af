"""Dynamic sampling: what teaches nothing is replaced, no prompt is lost or repeated, and a kill changes nothing."""

import json
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.rewards.reward import Reward
from orchestrator.run.cursor import PromptCursor, PromptPick, sample_seed
from orchestrator.training.online_metrics import Sampled
from orchestrator.training.refills import Drawn, drawn, teaches_nothing
from workers.types import Completion, Completions, GenerationRequest, Prompt

_SAMPLES = 4


def _scored(*values: float | None) -> list[Reward]:
    return [Reward(value=v, status="failed" if v is None else "scored") for v in values]


@pytest.mark.parametrize(
    ("values", "nothing"),
    [
        ((1.0, 1.0, 1.0), True),
        ((0.1 + 0.2, 0.3), False),  # equal to a float deviation, and not equal
        ((1.0, None, 1.0), True),
        ((1.0, None, 0.0), False),
        ((None, None), True),
        ((None, 1.0), True),
        ((0.0,), True),
    ],
)
def test_equality_is_of_the_rewards_themselves(values: tuple[float | None, ...], nothing: bool) -> None:
    assert teaches_nothing(_scored(*values)) is nothing


def _named(pick: PromptPick) -> Prompt:
    uid = f"p{pick.index:03d}" + (f"~{pick.repeat}" if pick.repeat else "")
    return Prompt(uid=uid, messages=(), media=())


class _World:
    """Samples whose rewards depend on prompt, sample and policy version alone, as with real engines."""

    def __init__(self, *, share_equal: float) -> None:
        self.share_equal, self.asked, self.version = share_equal, list[str](), 0

    def sample(self, prompts: Mapping[str, Prompt]) -> Sampled:
        self.asked += list(prompts)
        keys = [(uid, index) for uid in prompts for index in range(_SAMPLES)]
        return Sampled(
            requests=tuple(
                GenerationRequest(uid=u, sample_index=i, engine_prompt_ids=(), prompt_ids=(), media=(), seed=0,
                                  max_new_tokens=1, temperature=1.0)
                for u, i in keys
            ),
            completions=Completions.of(
                Completion(uid=u, sample_index=i, completion_ids=np.array([1], np.int32), finish_reason="stop",
                           rollout_logprobs=np.array([0.0], np.float32), policy_version=self.version, engine="e")
                for u, i in keys
            ),
            rewards=tuple(Reward(value=self._value(u, i), status="scored") for u, i in keys),
            texts=dict.fromkeys(keys, "."),
        )  # fmt: skip

    def _value(self, uid: str, index: int) -> float:
        drawn_share = sample_seed(7, uid, 0, self.version) / 2**63
        return 0.0 if drawn_share < self.share_equal else float(index)


def _step(cursor: PromptCursor, world: _World, *, count: int = 10, max_refills: int = 4) -> Drawn:
    return drawn(cursor, count, max_refills=max_refills, named=_named, sample=world.sample)


def _is_equal(world: _World, uid: str) -> bool:
    return world._value(uid, 1) == 0.0


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1), version=st.integers(0, 1000), refills=st.integers(0, 5), count=st.integers(1, 12))
def test_a_step_has_its_size_and_keeps_what_teaches(share: float, version: int, refills: int, count: int) -> None:
    world = _World(share_equal=share)
    world.version = version
    found = _step(PromptCursor(num_prompts=100, seed=1), world, count=count, max_refills=refills)
    assert len(found.prompts) == count
    assert Counter(r.uid for r in found.sampled.requests) == dict.fromkeys(found.prompts, _SAMPLES)
    assert [r.uid for r in found.sampled.requests] == [c.uid for c in found.sampled.completions]
    differing = [uid for uid in world.asked if not _is_equal(world, uid)]
    if refills:
        assert [uid for uid in found.prompts if not _is_equal(world, uid)] == differing[:count]
        assert found.figures["rollout/equal_frac"] == (len(world.asked) - len(differing)) / len(world.asked)
    assert (found.cursor.epoch * 100 + found.cursor.position) == len(world.asked)


def test_three_epochs_with_kills_use_every_prompt_as_often_as_every_other_and_in_the_same_order() -> None:
    unbroken, killed = _World(share_equal=0.5), _World(share_equal=0.5)
    cursor = PromptCursor(num_prompts=100, seed=3)
    steps: list[dict[str, int]] = []
    while cursor.epoch < 3:
        steps.append(cursor.to_json())
        unbroken.version = len(steps) - 1
        cursor = _step(cursor, unbroken).cursor
    rng, done = np.random.default_rng(0), list[str]()
    at, state = 0, json.dumps(steps[0])
    while at < len(steps):
        before = len(killed.asked)
        killed.version = at
        found = _step(PromptCursor.from_json(json.loads(state)), killed)
        if rng.random() < 0.4:  # killed before the checkpoint: it begins again from the one before
            killed.asked = killed.asked[:before]
            continue
        done += found.prompts
        at, state = at + 1, json.dumps(found.cursor.to_json())
    assert killed.asked == unbroken.asked
    used = Counter(uid.partition("~")[0] for uid in unbroken.asked[: 3 * 100])
    assert used == {f"p{i:03d}": 3 for i in range(100)}
    assert len(unbroken.asked) > 10 * len(steps), "something was refilled"


def test_guards_hear_of_every_reward_of_the_step() -> None:
    world = _World(share_equal=0.5)
    found = _step(PromptCursor(num_prompts=100, seed=3), world)
    assert len(found.rewards) == len(world.asked) * _SAMPLES > len(found.sampled.rewards)


def test_without_refills_nothing_is_dropped_or_told() -> None:
    world = _World(share_equal=1.0)
    found = _step(PromptCursor(num_prompts=5, seed=0), world, count=7, max_refills=0)
    assert len(found.prompts) == 7 and len(world.asked) == 7 and not found.figures
    assert sum("~1" in uid for uid in found.prompts) == 2, "a prompt that is there again has a name of its own"
