"""Samples that fail at random, any share of them: what is learned is what would be without them, or the run stops."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.policy_gradient import AlgorithmSection
from algorithms.records import Rollout, Sequence
from algorithms.stable_reinforce import StableReinforce
from orchestrator.cluster.microbatches import plan_microbatches
from orchestrator.errors import GuardStop
from orchestrator.rewards.replies import read_rewards
from orchestrator.rewards.reward import Reward, check_coverage
from orchestrator.run.cursor import split_whole

_GOOD = {"status": "scored", "parts": {"format": 1.0}}
_BAD: tuple[dict[str, object], ...] = (
    {"reward": None, "status": "failed", "detail": "the judge is away"},
    {"reward": "2.0", "status": "scored"},
    {"reward": float("nan"), "status": "scored"},
    {"status": "scored"},
    {"id": "somebody else"},
)


def _rewards(fates: list[int | None]) -> list[Reward]:
    """What a service's answer makes of samples: None is good, a number one of the ways to fail."""
    told = [
        {"id": str(i), "reward": float(i % 5), **_GOOD} if fate is None else {"id": str(i)} | _BAD[fate]
        for i, fate in enumerate(fates)
    ]
    ids = [str(i) for i in range(len(fates))]
    found = read_rewards(json.dumps({"items": told}).encode(), ids)
    return [found[i] for i in ids]


def _rollouts(rewards: list[Reward]) -> list[Rollout]:
    rollouts = []
    for index, reward in enumerate(rewards):
        length = 3 + index * 7 % 5
        sequence = Sequence(
            uid=f"p{index // 2}", sample_index=index % 2, input_ids=np.arange(length), prompt_len=2, media=()
        )
        # What stands beside a failed reward must not matter, whatever it is.
        logprobs = np.full(length, -0.5 if reward.value is not None else np.nan, np.float32)
        rollouts.append(
            Rollout(
                sequence=sequence,
                reward=reward.value,
                rollout_logprobs=logprobs,
                old_logprobs=logprobs,
                ref_logprobs=logprobs,
            )
        )
    return rollouts


@given(
    share=st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]) | st.floats(0.0, 1.0),
    count=st.integers(1, 40),
    num_updates=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=80)
def test_failed_samples_leave_the_others_as_they_are_or_the_run_stops(
    share: float, count: int, num_updates: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    fates = [int(rng.integers(len(_BAD))) if rng.random() < share else None for _ in range(count)]
    rewards = _rewards(fates)
    assert [r.value is None for r in rewards] == [fate is not None for fate in fates]
    scored = [i for i, fate in enumerate(fates) if fate is None]
    if not scored:
        with pytest.raises(GuardStop, match=f"{count} of {count} rollouts were not scored"):
            check_coverage(rewards, minimum=0.0)
        return
    check_coverage(rewards, minimum=0.0)
    rollouts = _rollouts(rewards)
    learner = StableReinforce("stable_reinforce", {"algorithm": AlgorithmSection(kl_coef=0.1)})
    ask: Any = SimpleNamespace(
        longest_response=8,
        state={},
        step=0,
        deal=lambda uids, epoch: split_whole(uids, num_updates, seed=seed, epoch=0),
    )
    learned, alone = learner.samples(rollouts, ask), learner.samples([rollouts[i] for i in scored], ask)
    assert learned.figures == alone.figures and np.isfinite(list(learned.figures.values())).all()
    named = sorted((s.uid, s.sequence.sample_index) for samples in learned.updates for s in samples)
    assert named == sorted((rollouts[i].sequence.uid, rollouts[i].sequence.sample_index) for i in scored)
    for samples, others in zip(learned.updates, alone.updates, strict=True):
        for sample, other in zip(samples, others, strict=True):
            np.testing.assert_array_equal(sample.advantages, other.advantages)
            assert np.isfinite(sample.advantages).all()
        assert sum(float(s.loss_weight.sum()) for s in samples) == pytest.approx(1.0)
        plan = plan_microbatches([len(s.sequence.input_ids) for s in samples], num_ranks=1, token_budget=16)
        assert sorted(i for rank in plan for batch in rank for i in batch) == list(range(len(samples)))
